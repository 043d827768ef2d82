"""Small jobs that a server without plug-ins can hold."""

from __future__ import annotations

from html import escape

from pipelines.jenkins import jobs

# With every field that Hudson 1.395 writes: it adds what is missing when it creates a job.
FREESTYLE = """\
<project>
  <actions/>
  <description>{description}</description>
  <keepDependencies>false</keepDependencies>
  <properties>{properties}</properties>
  <scm class="hudson.scm.NullSCM"/>
  <canRoam>true</canRoam>
  <disabled>false</disabled>
  <blockBuildWhenDownstreamBuilding>false</blockBuildWhenDownstreamBuilding>
  <blockBuildWhenUpstreamBuilding>false</blockBuildWhenUpstreamBuilding>
  <triggers class="vector"/>
  <concurrentBuild>false</concurrentBuild>
  <builders><hudson.tasks.Shell><command>{command}</command></hudson.tasks.Shell></builders>
  <publishers>
    <hudson.tasks.junit.JUnitResultArchiver>
      <testResults>report.xml</testResults>
      <keepLongStdio>false</keepLongStdio>
    </hudson.tasks.junit.JUnitResultArchiver>
  </publishers>
  <buildWrappers/>
</project>
"""
WORD = """\
<hudson.model.ParametersDefinitionProperty><parameterDefinitions><hudson.model.StringParameterDefinition>
<name>WORD</name><description/><defaultValue>nothing</defaultValue>
</hudson.model.StringParameterDefinition></parameterDefinitions></hudson.model.ParametersDefinitionProperty>
"""
PIPELINE = """\
<?xml version='1.1' encoding='UTF-8'?>
<flow-definition plugin="workflow-job@1400">
  <description>{description}</description>
  <keepDependencies>false</keepDependencies>
  {more}
  <definition class="org.jenkinsci.plugins.workflow.cps.CpsFlowDefinition" plugin="workflow-cps@4000">
    <script>{script}</script>
    <sandbox>true</sandbox>
  </definition>
  <disabled>false</disabled>
</flow-definition>
"""
REPORT = """\
<testsuite name="toy" tests="3" failures="{failed}" errors="0">
<testcase classname="toy" name="first"/>
<testcase classname="toy" name="second">{failure}</testcase>
<testcase classname="toy" name="third"><skipped/></testcase>
</testsuite>
"""


def xml(command: str = "true", *, description: str = "A toy.", properties: str = "") -> str:
    """A job of somebody."""
    return FREESTYLE.format(command=escape(command, quote=False), description=description, properties=properties)


def ours(command: str = "true", *, description: str = "A toy.", properties: str = "") -> jobs.Element:
    """A job of ours."""
    return jobs.marked(jobs.parse(xml(command, description=description, properties=properties), "a toy"))


def pipeline(script: str = "x", more: str = "<actions/><properties/>", description: str = "A toy.") -> jobs.Element:
    """A job that needs the plug-in Pipeline, as Jenkins writes it."""
    return jobs.marked(jobs.parse(PIPELINE.format(script=script, more=more, description=description), "a toy"))


def reporting(*, failed: bool = False) -> str:
    """A command that writes a report of three tests."""
    report = REPORT.format(failed=int(failed), failure='<failure message="no"/>' if failed else "")
    return f"cat > report.xml <<'END'\n{report}END\n"
