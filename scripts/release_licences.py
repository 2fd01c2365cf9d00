#!/usr/bin/env python3
"""Licences of all that is built into the commands for a target, on standard output.

    scripts/release_licences.py TARGET

Packages come from `cargo metadata`; those that only build or test are not in the commands, and are left out. Texts are those that the
packages bring; what several bring is printed once. Fails where a package says nothing of its licence.
"""
import json
import subprocess
import sys
from pathlib import Path

BEGIN = ("licen", "copying", "notice", "copyright", "unlicense")
RULE = "-" * 80


def metadata(target: str) -> dict:
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def linked(data: dict) -> list[dict]:
    """Packages that the root needs to run, without itself, by name and version."""
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    packages = {package["id"]: package for package in data["packages"]}
    root = data["resolve"]["root"]
    found, left = {root}, [root]
    while left:
        for dependency in nodes[left.pop()]["deps"]:
            package = packages[dependency["pkg"]]
            macro = any("proc-macro" in target["kind"] for target in package["targets"])
            runs = any(kind["kind"] is None for kind in dependency["dep_kinds"]) and not macro
            if runs and dependency["pkg"] not in found:
                found.add(dependency["pkg"])
                left.append(dependency["pkg"])
    return sorted((packages[i] for i in found - {root}), key=lambda package: (package["name"], package["version"]))


def texts(package: dict) -> list[str]:
    folder = Path(package["manifest_path"]).parent
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name.lower().startswith(BEGIN))
    read = [path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n").strip() for path in files]
    return [text for text in read if text]


def main(target: str) -> None:
    packages = linked(metadata(target))
    if len(packages) < 20:
        sys.exit(f"cargo metadata: only {len(packages)} packages are in the commands for {target}")
    # By words: lines are broken differently.
    brought: dict[str, tuple[str, list[str]]] = {}
    print(f"powerinfer-rs is licensed under MIT or Apache-2.0 (LICENSE-MIT, LICENSE-APACHE). For {target} it is built with\n")
    print("- the Rust standard library: MIT OR Apache-2.0, https://www.rust-lang.org")
    for package in packages:
        name, licence = f"{package['name']} {package['version']}", package["license"]
        if not licence and not package["license_file"]:
            sys.exit(f"{name}: says nothing of its licence")
        print(f"- {name}: {licence or 'see below'}, {package['repository'] or 'https://crates.io/crates/' + package['name']}")
        for text in texts(package):
            brought.setdefault(" ".join(text.split()), (text, []))[1].append(name)
    for text, names in brought.values():
        print(f"\n{RULE}\n{', '.join(names)}:\n\n{text}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    main(sys.argv[1])
