#!/usr/bin/env python3
"""Prints figures of the source tree: sizes, tasks, cycles, tests.

Usage: scripts/figures.py [REVISION ...]    default: the working tree

A revision is read from git, so that two states can be compared side by side. The script matches
text and does not parse Rust: comments and strings are blanked, and `#[cfg(test)] mod` blocks and
files that only tests compile do not count as source.
"""

import collections
import re
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = ("src/node/", "src/call/", "src/link/", "src/agent/", "src/caller", "src/observe/",
        "src/simulation/", "src/net/", "src/drain.rs")
DECLARED_FOR_TESTS = re.compile(r"#\[cfg\((?:all\()?test\b[^\]]*\]\s*(?:pub(?:\([^)]*\))? )?mod (\w+);")


def tree(revision):
    if revision is None:
        files = sorted(ROOT.glob("src/**/*.rs"))
        return {str(path.relative_to(ROOT)): path.read_text() for path in files}
    git = ["git", "-C", str(ROOT)]
    names = subprocess.run(git + ["ls-tree", "-r", "--name-only", revision, "src"],
                           check=True, capture_output=True, text=True).stdout.split()
    names = [name for name in names if name.endswith(".rs")]
    request = "".join(f"{revision}:{name}\n" for name in names).encode()
    out = subprocess.run(git + ["cat-file", "--batch"], input=request, check=True,
                         capture_output=True).stdout
    files, at = {}, 0
    for name in names:
        end = out.index(b"\n", at)
        size = int(out[at:end].split()[2])
        files[name] = out[end + 1:end + 1 + size].decode()
        at = end + size + 2
    return files


TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|r(#*)".*?"\1|"(?:\\.|[^"\\])*"|\'(?:\\[^\']+|[^\'\\])\'', re.S)


def blank(text):
    """Blanks comments and strings. Line numbers stay the same."""
    return TOKEN.sub(lambda found: re.sub(r"[^\n]", " ", found.group(0)), text)


def block_end(code, start):
    """The end of the block that opens after `start`, or of the declaration without one."""
    depth, brackets = 0, 0
    for found in re.compile(r"[{};()\[\]]").finditer(code, start):
        one = found.group(0)
        brackets += {"(": 1, "[": 1, ")": -1, "]": -1}.get(one, 0)
        depth += {"{": 1, "}": -1}.get(one, 0)
        if depth == 0 and (one == "}" or one == ";" and brackets == 0):
            return found.end()
    return len(code)


def without_tests(text):
    code = blank(text)
    for found in reversed(list(re.finditer(r"#\[cfg\((?:all\()?test\b[^\]]*\]\s*(?:pub(?:\([^)]*\))? )?mod \w+ \{", code))):
        end = block_end(code, found.end() - 1)
        text, code = text[:found.start()] + text[end:], code[:found.start()] + code[end:]
    return text


def for_tests_only(files):
    """Returns the paths of files that only tests compile."""
    only = {"src/testing.rs"}
    for path, text in files.items():
        parent = Path(path).with_suffix("") if Path(path).stem not in ("mod", "lib", "main") else Path(path).parent
        for found in DECLARED_FOR_TESTS.finditer(text):
            below = str(parent / found.group(1))
            only |= {other for other in files if other == f"{below}.rs" or other.startswith(f"{below}/")}
    return only


def functions(code):
    for found in re.finditer(r"\bfn \w+", code):
        end = block_end(code, found.end())
        if code[end - 1] == "}":
            yield code.count("\n", found.start(), end) + 1


def strongly_connected(graph):
    """Returns the cycles of a graph (Tarjan): components of more than one node."""
    index, low, stack, on, out, count = {}, {}, [], set(), [], [0]

    def visit(node):
        index[node] = low[node] = count[0]
        count[0] += 1
        stack.append(node)
        on.add(node)
        for next_ in graph.get(node, ()):
            if next_ not in index:
                visit(next_)
                low[node] = min(low[node], low[next_])
            elif next_ in on:
                low[node] = min(low[node], index[next_])
        if low[node] == index[node]:
            component = []
            while True:
                last = stack.pop()
                on.remove(last)
                component.append(last)
                if last == node:
                    break
            if len(component) > 1:
                out.append(sorted(component))

    sys.setrecursionlimit(10_000)
    for node in sorted(graph):
        if node not in index:
            visit(node)
    return out


USE = re.compile(r"\b(?:use|pub use|pub\((?:crate|super|in [\w:]+)\) use) ([^;]+);")


def leaves(tree_, prefix=()):
    """Yields the paths of a `use` tree."""
    depth, part, parts = 0, "", []
    for char in tree_:
        if char == "," and depth == 0:
            parts.append(part)
            part = ""
            continue
        depth += {"{": 1, "}": -1}.get(char, 0)
        part += char
    parts.append(part)
    for part in (part.strip() for part in parts):
        if not part:
            continue
        if "{" in part:
            head, rest = part.split("{", 1)
            yield from leaves(rest.rsplit("}", 1)[0], prefix + tuple(filter(None, head.strip().split("::"))))
        else:
            yield prefix + tuple(part.split(" as ")[0].strip().split("::"))


def module_of(path):
    parts = list(Path(path).with_suffix("").parts[1:])
    return tuple(parts[:-1] if parts[-1] in ("mod", "lib", "main") else parts)


def uses(files):
    """Returns the files that each file imports from, through re-exports to the definition."""
    modules = {module_of(path): path for path in files}
    exports = {}
    for path, text in files.items():
        code = blank(text)
        for found in re.finditer(r"\bpub(?:\([^)]*\))? use ([^;]+);", code):
            for leaf in leaves(found.group(1)):
                exports.setdefault(module_of(path), {})[leaf[-1]] = leaf
    def resolve(module, leaf, depth=0):
        leaf = list(leaf)
        if leaf[0] == "crate":
            base, leaf = (), leaf[1:]
        elif leaf[0] in ("self", "super"):
            base = module
            while leaf and leaf[0] in ("self", "super"):
                if leaf[0] == "super":
                    base = base[:-1]
                leaf = leaf[1:]
        elif module + (leaf[0],) in modules:
            base = module
        else:
            return None
        while leaf and base + (leaf[0],) in modules:
            base, leaf = base + (leaf[0],), leaf[1:]
        if leaf and depth < 8 and leaf[0] in exports.get(base, {}):
            found = resolve(base, exports[base][leaf[0]], depth + 1)
            if found:
                return found
        return modules.get(base)
    graph = collections.defaultdict(set)
    for path, text in files.items():
        code = blank(text)
        reexports = {found.start() for found in re.finditer(r"\bpub(?:\([^)]*\))? use", code)}
        for found in USE.finditer(code):
            if found.start() in reexports:
                continue
            for leaf in leaves(found.group(1)):
                target = resolve(module_of(path), leaf)
                if target and target != path:
                    graph[path].add(target)
    return graph


def module(path):
    parts = Path(path).parts
    return parts[1] if len(parts) > 2 else Path(path).stem


def figures(revision):
    everything = tree(revision)
    tests_only = for_tests_only(everything)
    source = {path: without_tests(text) for path, text in everything.items() if path not in tests_only}
    lines = {path: text.count("\n") for path, text in source.items()}
    sizes = [size for text in source.values() for size in functions(blank(text))]
    per_file = sorted(lines.values())
    starts = r"\bspawn(?:_until_stopped|_blocking)?\("
    spawns = sum(len(re.findall(starts, re.sub(r"\bfn spawn\w*", "", blank(text))))
                 for text in source.values())
    graph = uses(source)
    inside = {path: {to for to in targets if module(to) == module(path)} for path, targets in graph.items()}
    between = collections.defaultdict(set)
    for path, targets in graph.items():
        if path.startswith("src/bin/"):
            continue
        for to in targets:
            if module(to) != module(path):
                between[module(path)].add(module(to))
    tests = sum(len(re.findall(r"#\[(?:tokio::)?test\b", text)) for path, text in everything.items()
                if path.startswith(CORE))
    all_tests = sum(len(re.findall(r"#\[(?:tokio::)?test\b", text)) for text in everything.values())
    share = lambda most: f"{100 * sum(size <= most for size in sizes) / len(sizes):.1f} %"
    rows = [
        ("files", len(per_file)),
        ("lines without tests", sum(per_file)),
        ("lines of code", sum(
            bool(line.strip()) for text in source.values() for line in blank(text).split("\n"))),
        ("functions", len(sizes)),
        ("functions <= 20 lines", share(20)),
        ("functions <= 70 lines", share(70)),
        ("file median", round(statistics.median(per_file))),
        ("file p90", per_file[int(len(per_file) * 0.9)]),
        ("calls that start tasks", spawns),
        ("cycles between modules", len(strongly_connected(between))),
        ("modules with inner cycles", len({module(cycle[0]) for cycle in strongly_connected(inside)})),
        ("files in those cycles", sum(map(len, strongly_connected(inside)))),
        ("unit tests of core modules", tests),
        ("unit tests", all_tests),
    ]
    return rows, strongly_connected(inside)


def main():
    revisions = sys.argv[1:] or [None]
    columns = [figures(revision) for revision in revisions]
    print(f"{'':28}" + "".join(f"{revision or 'working tree':>14}" for revision in revisions))
    for row in zip(*(rows for rows, _ in columns)):
        print(f"{row[0][0]:28}" + "".join(f"{value:>14}" for _, value in row))
    for cycle in columns[-1][1]:
        print("cycle: " + " ".join(path.removeprefix("src/") for path in cycle))


main()
