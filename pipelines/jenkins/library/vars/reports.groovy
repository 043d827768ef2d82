// reports junit: 'a.xml, b.xml', sarif: 'c.sarif', id: 'name', keep: 'folder/**': whatever of it a build has left.
def call(Map what) {
    if (what.junit) {
        junit testResults: what.junit, allowEmptyResults: true
    }
    if (what.sarif) {
        recordIssues id: what.id, name: what.id, enabledForFailure: true, tool: sarif(pattern: what.sarif)
    }
    if (what.keep) {
        archiveArtifacts artifacts: what.keep, allowEmptyArchive: true
    }
}
