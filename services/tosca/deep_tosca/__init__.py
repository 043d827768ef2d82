"""TOSCA types and templates of DEEP, and what a template asks for."""
