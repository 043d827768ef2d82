// deep 'site verify local': a command of ours, with the environment that `make install` has made.
def call(String command) {
    sh label: "deep ${command}", script: ".venv/bin/deep ${command}"
}
