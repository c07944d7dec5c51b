"""Figures of the code's structure: files, lines, functions, arguments, imports.

python tests/benchmarks/house.py
"""

import ast
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import test_imports as known


def values(function: ast.FunctionDef) -> int:
    """Count what a function takes, besides self and cls."""
    arguments = function.args
    names = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def circles() -> list[set[str]]:
    """Find modules that import each other when they are loaded; a folder's own file counts where it is named."""
    below = {
        name: {one for one in known.imports(name, everywhere=False) if one in known.MODULES} for name in known.MODULES
    }
    reach: dict[str, set[str]] = {}
    for name in below:
        seen, waiting = set[str](), [name]
        while waiting:
            new = below[waiting.pop()] - seen
            seen |= new
            waiting += new
        reach[name] = seen
    found = {frozenset(other for other in below if name in reach[other] and other in reach[name]) for name in below}
    return [set(one) for one in found if len(one) > 1]


def main() -> None:
    """Print all."""
    texts = {name: path.read_text() for name, path in known.MODULES.items()}
    functions = [
        (f"{name}.{node.name}", values(node), node.end_lineno - node.lineno + 1)
        for name, text in texts.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
    ]
    tests = list((known.ROOT / "tests").rglob("*.py"))
    up = [
        (name, other)
        for name in known.MODULES
        if known.room(name) in known.FLOOR
        for other in known.imports(name)
        if other in known.MODULES
        and known.room(other) not in ("", known.room(name))
        and known.FLOOR[known.room(other)] >= known.FLOOR[known.room(name)]
    ]
    print("files at the top:", len(list((known.ROOT / "ksdiff_cli").glob("*.py"))))
    print("modules:", len(texts), "lines:", sum(len(text.splitlines()) for text in texts.values()))
    print("test files:", len(tests), "lines:", sum(len(path.read_text().splitlines()) for path in tests))
    print("longest functions:", sorted(((size, name) for name, _, size in functions), reverse=True)[:5])
    for most in (6, 10):
        wide = sorted(((count, name) for name, count, _ in functions if count > most), reverse=True)
        print(f"functions with more than {most} values:", len(wide), wide[:12])
    print("arrows up:", len(up), up)
    print("circles:", len(circles()), circles())


if __name__ == "__main__":
    main()
