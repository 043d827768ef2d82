"""What continuous integration and the release manager run: Jenkins jobs and releases."""
