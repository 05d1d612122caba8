"""Says pip's settings in the words of uv, which does not read them: `eval "$(python pip_settings.py)"`.

Whoever pointed pip at a mirror, a folder of wheels, a proxy or a certificate of their own expects
them to hold for `make setup` too. A variable that uv itself knows and that is set already wins.

Prints shell text: `export NAME=...` for each setting, and the array `find_links`. Standard library only:
it runs before anything is installed.
"""

import ast
import os
import shlex
import subprocess
import sys


def read_pip_settings() -> dict[str, str]:
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    settings = {}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        try:
            settings[key] = str(ast.literal_eval(value))
        except (SyntaxError, ValueError):
            continue
    return settings


def main() -> None:
    settings = read_pip_settings()

    def setting(*names: str) -> list[str]:
        for section in (":env:", "install", "global"):  # the order in which pip itself lets them win
            for name in names:
                if value := settings.get(f"{section}.{name}"):
                    return value.split()
        return []

    proxy = setting("proxy")
    for name, values in {
        "UV_DEFAULT_INDEX": setting("index-url"),
        "UV_INDEX": setting("extra-index-url"),
        "UV_INSECURE_HOST": setting("trusted-host"),
        "UV_HTTP_TIMEOUT": setting("timeout", "default-timeout"),
        "SSL_CERT_FILE": setting("cert"),
        "SSL_CLIENT_CERT": setting("client-cert"),
        "HTTP_PROXY": proxy,
        "HTTPS_PROXY": proxy,
    }.items():
        if values and not os.environ.get(name):
            sys.stdout.write(f"export {name}={shlex.quote(' '.join(values))}\n")

    find_links = setting("find-links") + os.environ.get("UV_FIND_LINKS", "").replace(",", " ").split()
    # pip takes a folder relative to where it is called.
    places = [link if "://" in link else os.path.abspath(os.path.expanduser(link)) for link in find_links]
    # uv ends with an error at a folder that is not there, where pip only warns.
    places = [place for place in places if "://" in place or os.path.exists(place)]
    sys.stdout.write(f"find_links=({' '.join(map(shlex.quote, places))})\n")


if __name__ == "__main__":
    main()
