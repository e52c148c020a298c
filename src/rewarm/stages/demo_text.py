"""Real text that every machine has: what Python and the installed packages say about themselves.

The demonstration needs two domains and questions about one of them, without a download. Three files
are harvested from the source of the standard library and of rewarm's own dependencies, which is
parsed and never imported:

* `old.jsonl`, English technical prose: docstrings, the language reference, package descriptions;
* `new.jsonl`, Python code of the standard library without docstrings and comments;
* `qa.jsonl`, questions and answers from signatures and the first sentences of docstrings.

An answer is a sentence of a docstring, so a question would measure nothing if its module's prose
had been trained on. Modules are therefore split by a hash of their name (`is_held_out_module`), and
a held-out module appears in `qa.jsonl` alone.

The road: trees of files → modules (parsed once) → three budgets of characters → three files. Every
order is sorted or keyed by a hash, so the same packages give the same bytes.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import hashlib
import inspect
import io
import json
import os
import platform
import re
import sysconfig
import tokenize
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from rewarm.artifacts import canonical_json, file_sha256, parse_json, write_atomically, write_json
from rewarm.errors import EnvironmentFault

__all__ = [
    "HELD_OUT_MODULE_SHARE",
    "DemoFile",
    "DemoLimits",
    "DemoText",
    "harvest_demo_text",
    "is_held_out_module",
]

HELD_OUT_MODULE_SHARE = 0.08
"""Share of the modules whose questions are kept for measuring."""

MARKER_NAME = "harvest.json"

Progress = Callable[[str, int], None]

# Used where rewarm runs from a checkout that is not installed; a test holds it to pyproject.toml.
_DEPENDENCIES = (
    "fsspec",
    "huggingface-hub",
    "jinja2",
    "numpy",
    "pyarrow",
    "pydantic",
    "rich",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
    "typer",
    "zstandard",
)
_LICENCES = {
    "old": "Python Software Foundation License; licences of the installed packages",
    "new": "Python Software Foundation License",
    "qa": "Python Software Foundation License; licences of the installed packages",
}

_SKIPPED_FOLDERS = frozenset(
    ["test", "tests", "idlelib", "lib2to3", "_vendor", "encodings", "pydoc_data", "__pycache__"]
)
_MAX_FILE_BYTES = 1_000_000
_MIN_DOCUMENT_CHARACTERS = 200
_PIECE_CHARACTERS = 3000
# A package's file is parsed only if this share of it is triple-quoted: parsing costs far more than
# counting, and most files of a large package say little.
_MIN_QUOTED_SHARE = 0.2
# A file of which more than this share is string constants is a table, not code.
_MAX_STRING_SHARE = 0.5
_MIN_README_PROSE_SHARE = 0.4
_MAX_SAME_ANSWERS = 3
_MAX_PARAMETERS = 8
_ANSWER_CHARACTERS = range(20, 301)


# --- what is asked for and what comes back -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DemoLimits:
    """The most that each file may hold; the defaults keep the whole demo to a few minutes."""

    num_old_characters: int = 12_000_000
    num_new_characters: int = 6_000_000
    num_qa_pairs: int = 30_000


@dataclass(frozen=True, slots=True)
class DemoFile:
    """One harvested JSONL file; `num_characters` counts the field `text` alone."""

    path: Path
    num_documents: int
    num_characters: int
    num_bytes: int
    sha256: str
    licence: str


@dataclass(frozen=True, slots=True)
class DemoText:
    """The three files, and what was left out, counted by reason."""

    old: DemoFile
    new: DemoFile
    qa: DemoFile
    num_held_out_qa_pairs: int
    num_left_out: Mapping[str, int]
    reused: bool


def is_held_out_module(module: str, share: float = HELD_OUT_MODULE_SHARE) -> bool:
    """Tell whether a module's questions are kept for measuring.

    The rule of the corpus split by group: blake2b-64 of the UTF-8 name, big-endian, over 2⁶⁴, is
    below the share. A preparation that splits `qa.jsonl` by its field `module` agrees with it.
    """
    return _name_hash(module) / 2**64 < share


def harvest_demo_text(
    folder: Path, *, limits: DemoLimits | None = None, progress: Progress | None = None
) -> DemoText:
    """Write `old.jsonl`, `new.jsonl` and `qa.jsonl` into a folder and return what they hold.

    Deterministic: the same Python and packages give the same bytes. A second call finds the marker
    and returns at once. `progress` receives what is being read and the number of files read so far.

    Raises EnvironmentFault where Python came without its own source files.
    """
    limits = limits or DemoLimits()
    library = Path(sysconfig.get_path("stdlib"))
    distributions = _dependency_distributions()
    key = {
        "rules": file_sha256(Path(__file__)),
        "python": platform.python_version(),
        "packages": {name: found.version for name, found in distributions.items()},
        "limits": asdict(limits),
    }
    return _read_marker(folder, key) or _harvest(
        folder,
        key=key,
        limits=limits,
        progress=progress or (lambda what, num_files: None),
        library=_Tree.of_folder("stdlib", library),
        packages=[_Tree.of_distribution(name, found) for name, found in distributions.items()],
        topics=_topics(library / "pydoc_data" / "topics.py"),
        descriptions={name: _description(found) for name, found in distributions.items()},
    )


# --- trees of source files -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tree:
    """The Python files of the standard library or of one package, by dotted module name."""

    name: str
    paths: Mapping[str, Path]

    @classmethod
    def of_folder(cls, name: str, root: Path) -> _Tree:
        found: dict[str, Path] = {}
        for parent, folders, files in os.walk(root):
            folders[:] = [folder for folder in folders if folder.isidentifier()]
            inner = Path(parent).relative_to(root).parts
            for file in files:
                if file.endswith(".py"):
                    found.update(_module_of((*inner, file), root))
        return cls(name, found)

    @classmethod
    def of_distribution(cls, name: str, distribution: metadata.Distribution) -> _Tree:
        root = Path(str(distribution.locate_file("")))
        found: dict[str, Path] = {}
        for file in distribution.files or ():
            if file.suffix == ".py":
                found.update(_module_of(file.parts, root))
        return cls(name, found)

    def modules_in_fair_order(self) -> list[str]:
        """Return the modules by a hash of their name: any beginning is a fair sample.

        Not by the hash that holds modules out: the order would begin with all of those.
        """
        return sorted(self.paths, key=lambda module: (_name_hash(f"order of {module}"), module))


def _module_of(parts: tuple[str, ...], root: Path) -> dict[str, Path]:
    """Return {dotted name: path} of a Python file worth reading, and nothing for any other."""
    *folders, stem = (*parts[:-1], parts[-1].removesuffix(".py"))
    if not all(part.isidentifier() for part in (*folders, stem)):
        return {}
    if _SKIPPED_FOLDERS.intersection(folders) or stem.startswith(("test_", "conftest", "__main__")):
        return {}
    names = folders if stem == "__init__" else [*folders, stem]
    return {".".join(names): root.joinpath(*parts)} if names else {}


def _name_hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8"), digest_size=8).digest(), "big")


def _dependency_distributions() -> dict[str, metadata.Distribution]:
    """Return what rewarm requires and what that requires in turn, as far as it is installed."""
    try:
        waiting = _required_names(metadata.requires("rewarm"))
    except metadata.PackageNotFoundError:
        waiting = list(_DEPENDENCIES)
    found: dict[str, metadata.Distribution] = {}
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        waiting += _required_names(found[name].requires)
    return dict(sorted(found.items()))


def _required_names(requirements: Sequence[str] | None) -> list[str]:
    """Return the normalised names of requirements that hold without any extra."""
    names: list[str] = []
    for requirement in requirements or ():
        text, _, marker = requirement.partition(";")
        name = re.match(r"[A-Za-z0-9._-]+", text.strip())
        if name and "extra" not in marker:
            names.append(re.sub(r"[-_.]+", "-", name[0]).lower())
    return names


def _description(distribution: metadata.Distribution) -> str:
    """Return the long description of a package, usually its README."""
    return str(distribution.metadata.json.get("description", ""))


# --- one module ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    """A documented name of a module: `kind` is module, class or function; its text is dedented."""

    name: str
    kind: str
    docstring: str
    parameters: tuple[str, ...]

    @property
    def is_public(self) -> bool:
        return not any(part.startswith("_") for part in self.name.split("."))


class _Unusable(Exception):  # noqa: N818, it is no error of anybody's
    """A file or document that is left out; the message is the reason under which it is counted."""


def _read_source(path: Path) -> str:
    """Return a file's text with `\\n` line ends, decoded as its coding line says."""
    try:
        data = path.read_bytes()
    except OSError:
        raise _Unusable("unreadable") from None
    if len(data) > _MAX_FILE_BYTES:
        raise _Unusable("too large")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError):
        raise _Unusable("undecodable") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parse(source: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other people's escape sequences
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _Unusable("unparsable") from None


def _entries(module: str, tree: ast.Module) -> Iterator[_Entry]:
    """Yield the documented names of a module, in the order of the file."""
    if docstring := _docstring(tree):
        yield _Entry(module, "module", docstring, ())
    yield from _inner_entries(module, tree.body, in_class=False)


def _inner_entries(outer: str, body: Sequence[ast.stmt], *, in_class: bool) -> Iterator[_Entry]:
    for node in body:
        match node:
            case ast.ClassDef():
                name = f"{outer}.{node.name}"
                if docstring := _docstring(node):
                    yield _Entry(name, "class", docstring, ())
                yield from _inner_entries(name, node.body, in_class=True)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                if docstring := _docstring(node):
                    parameters = _plain_parameters(node, in_class=in_class)
                    yield _Entry(f"{outer}.{node.name}", "function", docstring, parameters)
            case ast.If() | ast.Try():
                yield from _inner_entries(outer, node.body, in_class=in_class)
                yield from _inner_entries(outer, node.orelse, in_class=in_class)
            case _:
                pass


def _docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return _clean(ast.get_docstring(node, clean=False) or "")


def _clean(text: str) -> str:
    """Return a docstring without its indentation and without characters that no text needs."""
    return _CONTROL.sub(" ", inspect.cleandoc(text))


def _plain_parameters(
    node: ast.FunctionDef | ast.AsyncFunctionDef, *, in_class: bool
) -> tuple[str, ...]:
    """Return the parameter names, without self; none where *args or **kwargs hide some."""
    arguments = node.args
    if arguments.vararg or arguments.kwarg:
        return ()
    decorators = {item.id for item in node.decorator_list if isinstance(item, ast.Name)}
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    if in_class and "staticmethod" not in decorators:
        names = names[1:]
    names += [argument.arg for argument in arguments.kwonlyargs]
    return () if any(name.startswith("_") for name in names) else tuple(names)


# --- code without prose --------------------------------------------------------------------------

_STRING = (
    r"'''[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*'''"
    r'|"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"""'
    r"|'[^'\\\n]*(?:\\.[^'\\\n]*)*'"
    r'|"[^"\\\n]*(?:\\.[^"\\\n]*)*"'
)
_STRINGS = re.compile(_STRING, re.DOTALL)
# Strings come first in both patterns, so that what only looks like a comment or an empty line
# inside one is left alone.
_COMMENTS = re.compile(rf"({_STRING})|(?<!\\)\n[ \t\f]*+#[^\n]*+|#[^\n]*+", re.DOTALL)
_BLANKS = re.compile(rf"({_STRING})|[ \t\f]++(?=\n)|\n(?:[ \t\f]*+\n)++", re.DOTALL)
_BLOCK_FIELDS = frozenset(["body", "orelse", "finalbody", "handlers", "cases"])
_F_STRING = re.compile(r"[fF][rR]?[\"']")


def _strip_prose(source: str, tree: ast.Module) -> str:
    """Return a module's code without docstrings, comments and runs of empty lines.

    Every statement that is nothing but a string goes, since beside docstrings that is how people
    write long comments; `pass` stands where a body would be empty. Raises _Unusable where the
    result is no Python: an f-string that quotes itself (new in 3.12) can mislead the pattern.
    """
    lines = source.split("\n")
    for node, is_alone in sorted(_string_statements(tree.body), key=_from_the_end):
        _cut(lines, node, "pass" if is_alone else "")
    code = _COMMENTS.sub(lambda match: match[1] or "", "\n" + "\n".join(lines) + "\n")
    code = _BLANKS.sub(lambda match: match[1] or ("\n\n" if "\n" in match[0] else ""), code)
    code = code.strip("\n") + "\n"
    if _F_STRING.search(code):
        _parse(code)
    return code


def _from_the_end(statement: tuple[ast.Expr, bool]) -> tuple[int, int]:
    return -statement[0].lineno, -statement[0].col_offset


def _string_statements(body: Sequence[ast.stmt]) -> Iterator[tuple[ast.Expr, bool]]:
    """Yield the statements that are only a string, and whether their block holds nothing else."""
    found = [node for node in body if _is_string_statement(node)]
    for index, node in enumerate(found):
        assert isinstance(node, ast.Expr)
        yield node, len(found) == len(body) and index == 0
    for node in body:
        for block in _blocks(node):
            yield from _string_statements(block)


def _blocks(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    """Yield the blocks of a compound statement: its body, else, handlers, cases."""
    for field in node._fields:
        for part in getattr(node, field) if field in _BLOCK_FIELDS else ():
            if isinstance(part, ast.stmt):
                yield getattr(node, field)
                break
            yield part.body


def _is_string_statement(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _cut(lines: list[str], node: ast.Expr, replacement: str) -> None:
    """Replace a statement in the lines of its file; all other lines keep their number."""
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    first, last = node.lineno - 1, node.end_lineno - 1
    # The parser counts columns in UTF-8 bytes.
    before = lines[first].encode("utf-8")[: node.col_offset].decode("utf-8")
    after = lines[last].encode("utf-8")[node.end_col_offset :].decode("utf-8")
    if not replacement:
        after = after.lstrip(" \t").removeprefix(";").lstrip(" \t")
    lines[first : last + 1] = [before + replacement + after, *[""] * (last - first)]


def _new_text(source: str, tree: ast.Module) -> str:
    """Return a module's code for the new domain, or raise _Unusable with the reason."""
    code = _strip_prose(source, tree)
    if len(code) < _MIN_DOCUMENT_CHARACTERS:
        raise _Unusable("code too short")
    if sum(len(match[0]) for match in _STRINGS.finditer(code)) > _MAX_STRING_SHARE * len(code):
        raise _Unusable("table of constants")
    return code


# --- prose ---------------------------------------------------------------------------------------

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_HTML_TAGS = (
    "a|b|i|p|em|h[1-6]|hr|br|li|ol|ul|td|th|tr|div|img|sub|sup|code|span|kbd|pre|small|strong|table|"
    "tbody|thead|center|details|summary|picture|source|video"
)
_MARKUP_SIGN = re.compile(r"[`\[<*#]")
_MARKUP = (
    (re.compile(r":[\w:+-]+:`~?([^`<]*[^`<\s])(?:\s*<[^>`]*>)?`"), r"\1"),  # :func:`shutil.move`
    (re.compile(r"\[`~?([^`\]]+)`\](?:\([^)\s]*\))?"), r"\1"),  # [`~Trainer.train`]
    (re.compile(r"!\[[^\]]*\]\([^)\s]*\)"), ""),  # an image
    (re.compile(r"\[([^\[\]]*)\]\([^)\s]*\)"), r"\1"),  # [text](address)
    (re.compile(r"\[([^\[\]\n]+)\]\[[^\[\]\n]*\]"), r"\1"),  # [text][reference]
    (re.compile(r"^\[[^\[\]\n]+\]: .*$", re.MULTILINE), ""),  # [reference]: address
    (re.compile(r"`([^`<\n]+?)\s*<[^>`\s]+>`__?"), r"\1"),  # `text <address>`_
    (re.compile(rf"<!--.*?-->|</?(?:{_HTML_TAGS})\b[^<>]{{0,300}}>", re.DOTALL | re.I), ""),
    (re.compile(r"`+([^`]{1,300})`+_{0,2}"), r"\1"),
    (re.compile(r"(?<![\w*])(\*{1,2})([^*\s](?:[^*\n]*[^*\s])?)\1(?![\w*])"), r"\2"),  # *emphasis*
    (re.compile(r" ?\[\w+\]_(?!\w)"), ""),  # a citation, [1]_
    (re.compile(r"^#+ +", re.MULTILINE), ""),
)
_CODE_SIGN = re.compile(r"[^\w\s]{3}|::|\.\. |@\w|\{\{|\|")
_ADMONITION = re.compile(r"\.\. (?:note|warning|tip|important|caution|hint|attention)::(.*)")
_DIRECTIVE = re.compile(r"\.\. |::$|@\w+\(|\{\{")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.\w")
_UNDERLINE = re.compile(r"[^\w\s]{3,}$|[-=~+| ]{3,}$|(?:\|[^|]+\|\s*)+$")
_LINE_OF_CODE = re.compile(
    r"(?:def|class|import|raise|assert|async|await|elif|except|yield|del|lambda) \S.*"
    r"|from \S+ import .*|(?:if|for|while|with) .*:|(?:return|else:|try:|print\(|@\w|\$ |#|%).*"
    r"|[\w.\[\], \"']+ [-+*/|&]?= .*|[\w.]+\(.*\)|.*(?:[{};\\]|::=.*|->.*)"
)
_HEADING_OF_CODE = re.compile(r"(?:Examples?|Usage|References|See Also|Doctests?|Synopsis):?", re.I)
_WORD = re.compile(r"[A-Za-z]{2,}")
_UNPROSAIC = re.compile(r"[^A-Za-z ,.\n]")
_MAX_UNPROSAIC_SHARE = 0.25


def _prose(docstring: str) -> str:
    """Return the prose of a docstring, a topic of the language reference or a README.

    A simple rule, in two sieves. By line: doctests, fenced and literal blocks, directives,
    underlines, badges and e-mail addresses go. By paragraph: it stays if most of its lines do not
    look like code and three quarters of its characters are letters, spaces, commas and full stops.
    """
    text = docstring
    if _CODE_SIGN.search(text):
        text = "\n".join(_lines_outside_code(text.split("\n")))
    text = _without_markup(text)
    paragraphs = [part.strip("\n") for part in re.split(r"\n\s*\n", text)]
    return "\n\n".join(part for part in paragraphs if _is_prose(part))


def _without_markup(text: str) -> str:
    if _MARKUP_SIGN.search(text):
        for pattern, replacement in _MARKUP:
            text = pattern.sub(replacement, text)
    return text


def _lines_outside_code(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines that are in no doctest, fenced block, literal block or directive."""
    fenced = doctest = False
    block_indent: int | None = None
    for line in lines:
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        if stripped.startswith(("```", "~~~")):
            fenced = not fenced
            continue
        doctest = bool(stripped) and (doctest or stripped.startswith(">>>"))
        if block_indent is not None and stripped and indent <= block_indent:
            block_indent = None
        if fenced or doctest or (block_indent is not None and stripped):
            continue
        if admonition := _ADMONITION.match(stripped):
            yield " " * indent + admonition[1].strip()
        elif _DIRECTIVE.match(stripped):
            block_indent = indent
        elif stripped.endswith("::"):
            block_indent = indent
            yield line.rstrip()[:-1]
        elif not _UNDERLINE.match(stripped) and not _EMAIL.search(stripped):
            yield line.rstrip()


def _is_prose(paragraph: str) -> bool:
    lines = [line.strip() for line in paragraph.split("\n")]
    num_of_code = sum(bool(_LINE_OF_CODE.fullmatch(line)) for line in lines)
    if 2 * num_of_code >= len(lines) or len(_WORD.findall(paragraph)) < 2:
        return False
    if len(lines) == 1 and _HEADING_OF_CODE.fullmatch(lines[0]):
        return False
    num_characters = sum(map(len, lines))
    return len(_UNPROSAIC.findall(paragraph)) <= _MAX_UNPROSAIC_SHARE * num_characters


def _topics(path: Path) -> Mapping[str, str]:
    """Return the language reference that `help()` shows, by topic; empty where Python lacks it."""
    try:
        tree = _parse(_read_source(path))
    except _Unusable:
        return {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            pairs = zip(node.value.keys, node.value.values, strict=True)
            return {
                str(key.value): str(value.value)
                for key, value in pairs
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant)
            }
    return {}


def _readme_text(description: str) -> str:
    """Return the prose of a package's description, or raise _Unusable with the reason."""
    text = _prose(_clean(description))
    if len(text) < _MIN_DOCUMENT_CHARACTERS:
        raise _Unusable("description too short")
    if len(text) < _MIN_README_PROSE_SHARE * len(description):
        raise _Unusable("description mostly markup")
    return text


# --- questions -----------------------------------------------------------------------------------

_SIGNATURE = re.compile(r"[\w.]+\(.*")
_SECTION = re.compile(
    r"(?:[-*+•] |\d+[.)] |:\w+|>>>|@\w+|(?:Args|Arguments|Parameters|Params|Returns?|Raises|Yields|"
    r"Examples?|Usage|Notes?|Attributes|Inputs?|Outputs?|Keyword[ \w]*|References|See also|"
    r"Warnings?)\s*(?::|$))",
    re.I,
)
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[\"'(`]?[A-Z])")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|al|resp|approx|Fig|No|Dr|Mr|St|[A-Z])\.)$")
_UNFINISHED = re.compile(r"\b(?:a|an|and|are|as|by|for|from|if|in|is|of|or|that|the|to|with)[.!]$")
_MAX_UNPROSAIC_SHARE_OF_ANSWER = 0.15
_NOT_A_SENTENCE = re.compile(r"[\[\]{}|\\<>=^~*@#$%`]|->|https?:|__|\.\.\.|TODO|FIXME|XXX")
_BOILERPLATE = re.compile(
    r"(?:See |Same as |Like |Alias |Overrid|Inherit|Internal|Deprecated|Obsolete|Undocumented|"
    r"Not implemented|Placeholder|Subclass|Helper|Dummy|Constructs? an? .* configuration|"
    r"This (?:method|function|class) (?:is|should|must)|Return self|Refer to)",
)


def _first_sentence(docstring: str) -> str | None:
    """Return the first sentence of a docstring where it is one that can be an answer."""
    paragraphs = re.split(r"\n\s*\n", docstring[:2000])
    if len(paragraphs) > 1 and _SIGNATURE.fullmatch(paragraphs[0].split("\n")[0].strip()):
        paragraphs = paragraphs[1:]
    lines: list[str] = []
    for line in paragraphs[0].split("\n"):
        if _SECTION.match(line.strip()) or _UNDERLINE.match(line.strip()):
            break
        lines.append(line.strip())
    text = _without_markup(" ".join(lines))
    sentence = _cut_after_sentence(re.sub(r"\s+", " ", text).strip())
    return sentence if _is_answer(sentence) else None


def _cut_after_sentence(text: str) -> str:
    for match in _SENTENCE_END.finditer(text):
        if not _ABBREVIATION.search(text[: match.start()]):
            return text[: match.end()].rstrip()
    return text if text.endswith((".", "!", "?", ":", ",", ";")) else text + "."


def _is_answer(sentence: str) -> bool:
    return (
        len(sentence) in _ANSWER_CHARACTERS
        and sentence[0].isupper()
        and sentence.endswith((".", "!"))
        and sentence.isascii()
        and len(_WORD.findall(sentence)) >= 4
        and len(_UNPROSAIC.findall(sentence)) <= _MAX_UNPROSAIC_SHARE_OF_ANSWER * len(sentence)
        and not _UNFINISHED.search(sentence)
        and not _NOT_A_SENTENCE.search(sentence)
        and not _BOILERPLATE.match(sentence)
    )


_QUESTION = {
    "module": "What is the module {} for?",
    "class": "What is the class {}?",
    "function": "What does {} do?",
}


@dataclass(frozen=True, slots=True)
class _Pair:
    """One question with its answer."""

    id: str
    module: str
    question: str
    answer: str

    def as_document(self) -> dict[str, str]:
        text = f"Question: {self.question}\nAnswer: {self.answer}"
        return {
            "id": self.id,
            "module": self.module,
            "question": self.question,
            "answer": self.answer,
            "text": text,
        }


def _pairs(tree: str, module: str, entry: _Entry, sentence: str) -> Iterator[_Pair]:
    """Yield the questions that a documented public name can answer."""
    question = _QUESTION[entry.kind].format(entry.name)
    yield _Pair(f"{tree}:{entry.name}:purpose", module, question, sentence)
    if 1 <= len(entry.parameters) <= _MAX_PARAMETERS:
        question = f"What are the parameters of {entry.name}?"
        answer = ", ".join(entry.parameters)
        yield _Pair(f"{tree}:{entry.name}:parameters", module, question, answer)


# --- the harvest ---------------------------------------------------------------------------------


class _Budget:
    """Documents up to a number of characters; the first that does not fit closes it."""

    def __init__(self, num_characters: int) -> None:
        self.num_characters_left = num_characters
        self.is_closed = False
        self._documents: dict[str, str] = {}
        self._hashes: set[int] = set()

    def add(self, identity: str, text: str) -> int:
        """Take a document and return its characters, or raise _Unusable with the reason."""
        if self.is_closed or len(text) > self.num_characters_left:
            self.is_closed = True
            raise _Unusable("document over the limit")
        if (digest := _name_hash(text)) in self._hashes:
            raise _Unusable("document repeated")
        self._hashes.add(digest)
        self._documents[identity] = text
        self.num_characters_left -= len(text)
        return len(text)

    def documents(self) -> list[dict[str, str]]:
        """Return the documents in the order of their ids."""
        return [{"id": key, "text": text} for key, text in sorted(self._documents.items())]


class _Harvest:
    """What is collected while the files are read, each of them once."""

    def __init__(self, limits: DemoLimits, progress: Progress) -> None:
        self.old = _Budget(limits.num_old_characters)
        self.new = _Budget(limits.num_new_characters)
        self.pairs: list[_Pair] = []
        self.trained_sentences: set[str] = set()
        self.left_out: Counter[str] = Counter()
        self._progress = progress
        self._num_files = 0
        self._docstring_hashes: set[int] = set()

    def read_library(self, tree: _Tree, topics: Mapping[str, str]) -> None:
        """Read the standard library whole: prose, code and questions."""
        for module in tree.modules_in_fair_order():
            with self._counting():
                source = self._source(tree, module)
                parsed = _parse(source)
                entries = list(_entries(module, parsed))
                self._take_questions(tree, module, entries)
                with self._counting():
                    self._take_prose(tree, module, entries)
                if not is_held_out_module(module):
                    self.new.add(f"{tree.name}:{module}", _new_text(source, parsed))
        for topic, text in sorted(topics.items()):
            with self._counting():
                self.old.add(f"topic:{topic}", _long_enough(_prose(_clean(text))))

    def read_descriptions(self, descriptions: Mapping[str, str]) -> None:
        """Read the long descriptions of the packages."""
        for name, description in sorted(descriptions.items()):
            with self._counting():
                self.old.add(f"description:{name}", _readme_text(description))

    def read_packages(self, trees: Sequence[_Tree]) -> None:
        """Read packages until the prose is enough; the turn is with the one that gave least."""
        waiting = {tree.name: (tree, iter(tree.modules_in_fair_order())) for tree in trees}
        num_characters = dict.fromkeys(sorted(waiting), 0)
        while num_characters and not self.old.is_closed:
            name = min(num_characters, key=num_characters.__getitem__)
            tree, modules = waiting[name]
            module = next(modules, None)
            if module is None:
                del num_characters[name]
                continue
            with self._counting():
                source = self._source(tree, module)
                if sum(map(len, source.split('"""')[1::2])) < _MIN_QUOTED_SHARE * len(source):
                    raise _Unusable("package file with little prose")
                entries = list(_entries(module, _parse(source)))
                self._take_questions(tree, module, entries)
                num_characters[name] += self._take_prose(tree, module, entries)

    @contextlib.contextmanager
    def _counting(self) -> Iterator[None]:
        try:
            yield
        except _Unusable as reason:
            self.left_out[str(reason)] += 1

    def _source(self, tree: _Tree, module: str) -> str:
        self._num_files += 1
        self._progress(tree.name, self._num_files)
        return _read_source(tree.paths[module])

    def _take_questions(self, tree: _Tree, module: str, entries: Sequence[_Entry]) -> None:
        for entry in entries:
            sentence = _first_sentence(entry.docstring)
            if sentence is None:
                continue
            if not is_held_out_module(module):
                self.trained_sentences.add(sentence)
            if entry.is_public:
                self.pairs += _pairs(tree.name, module, entry, sentence)

    def _take_prose(self, tree: _Tree, module: str, entries: Sequence[_Entry]) -> int:
        """Take a module's docstrings as one document and return its characters."""
        if is_held_out_module(module):
            raise _Unusable("prose of a held-out module")
        parts: list[str] = []
        for entry in entries:
            digest = _name_hash(entry.docstring)
            prose = "" if digest in self._docstring_hashes else _prose(entry.docstring)
            self._docstring_hashes.add(digest)
            if prose:
                parts.append(f"{entry.name}\n\n{prose}")
        return self.old.add(f"{tree.name}:{module}", _long_enough("\n\n".join(parts)))


def _chosen_pairs(harvest: _Harvest, num_qa_pairs: int) -> list[_Pair]:
    """Return the pairs to keep, by id: no repeated name, no worn-out answer, no leak, no excess.

    An answer that is also found in a module that is trained on is no secret, so a held-out module
    loses that pair. Above the limit the hash of the id chooses.
    """
    trained = [pair.answer for pair in harvest.pairs if not is_held_out_module(pair.module)]
    known = harvest.trained_sentences.union(trained)
    num_same: Counter[str] = Counter()
    kept: dict[str, _Pair] = {}
    for pair in harvest.pairs:
        if pair.id in kept:
            harvest.left_out["question repeated"] += 1
        elif is_held_out_module(pair.module) and pair.answer in known:
            harvest.left_out["held-out answer known elsewhere"] += 1
        elif num_same[pair.answer] == _MAX_SAME_ANSWERS:
            harvest.left_out["answer repeated"] += 1
        else:
            num_same[pair.answer] += 1
            kept[pair.id] = pair
    chosen = sorted(kept.values(), key=lambda pair: (_name_hash(pair.id), pair.id))[:num_qa_pairs]
    harvest.left_out["question over the limit"] += len(kept) - len(chosen)
    return sorted(chosen, key=lambda pair: pair.id)


def _long_enough(text: str) -> str:
    if len(text) < _MIN_DOCUMENT_CHARACTERS:
        raise _Unusable("prose too short")
    return text


def _harvest(
    folder: Path,
    *,
    key: Mapping[str, Any],
    limits: DemoLimits,
    progress: Progress,
    library: _Tree,
    packages: Sequence[_Tree],
    topics: Mapping[str, str],
    descriptions: Mapping[str, str],
) -> DemoText:
    """Harvest the given trees into a folder: what `harvest_demo_text` does once it knows them."""
    harvest = _Harvest(limits, progress)
    with _without_garbage_collection():
        harvest.read_library(library, topics)
        harvest.read_descriptions(descriptions)
        harvest.read_packages(packages)
    pairs = _chosen_pairs(harvest, limits.num_qa_pairs)
    documents = {
        "old": _in_pieces(harvest.old.documents(), may_break_before=_begins_paragraph),
        "new": _in_pieces(harvest.new.documents(), may_break_before=_begins_statement),
        "qa": [pair.as_document() for pair in pairs],
    }
    for name, found in documents.items():
        if not found:
            raise EnvironmentFault(
                f"no text for {name}.jsonl was found: this Python came without its source files",
                "run the demo with a Python that has them (python.org, pyenv, uv or conda)",
            )
    text = DemoText(
        **{name: _write(folder, name, found) for name, found in documents.items()},
        num_held_out_qa_pairs=sum(is_held_out_module(pair.module) for pair in pairs),
        num_left_out=dict(sorted(harvest.left_out.items())),
        reused=False,
    )
    _write_marker(folder, key, text)
    return text


def _in_pieces(
    documents: Iterable[Mapping[str, str]], *, may_break_before: Callable[[str, str], bool]
) -> list[dict[str, str]]:
    """Cut long documents where they allow it, so that a small held-out share holds many of them.

    `may_break_before(previous, line)` tells where. The first piece keeps the id, the others are
    numbered from 2.
    """
    cut: list[dict[str, str]] = []
    for document in documents:
        pieces: list[list[str]] = [[]]
        size = 0
        previous = ""
        for line in document["text"].split("\n"):
            if size >= _PIECE_CHARACTERS and may_break_before(previous, line):
                pieces.append([])
                size = 0
            pieces[-1].append(line)
            size += len(line) + 1
            previous = line
        for number, piece in enumerate(pieces, start=1):
            suffix = f"#{number}" if number > 1 else ""
            text = "\n".join(piece) if len(pieces) == 1 else "\n".join(piece).strip("\n")
            if text:
                cut.append({"id": document["id"] + suffix, "text": text})
    return cut


def _begins_paragraph(previous: str, line: str) -> bool:
    return not previous.strip() and bool(line.strip())


def _begins_statement(previous: str, line: str) -> bool:
    starts = line.lstrip().startswith(("def ", "class ", "@", "async def "))
    return starts and not previous.lstrip().startswith("@")


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Halve the time of parsing: trees have no cycles, yet the collector searches them for some."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _write(folder: Path, name: str, documents: Sequence[Mapping[str, str]]) -> DemoFile:
    data = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in documents).encode(
        "utf-8"
    )
    path = folder / f"{name}.jsonl"
    write_atomically(path, data)
    return DemoFile(
        path=path,
        num_documents=len(documents),
        num_characters=sum(len(item["text"]) for item in documents),
        num_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        licence=_LICENCES[name],
    )


def _write_marker(folder: Path, key: Mapping[str, Any], text: DemoText) -> None:
    """Write the marker, last: the files are whole once it names their hashes."""
    facts = asdict(text)
    del facts["reused"]
    for name in _LICENCES:
        facts[name]["path"] = facts[name]["path"].name
    write_json(folder / MARKER_NAME, {"key": key, "text": facts})


def _read_marker(folder: Path, key: Mapping[str, Any]) -> DemoText | None:
    """Return an earlier harvest with this key, if its files still are what they were."""
    try:
        marker = parse_json((folder / MARKER_NAME).read_bytes())
        if canonical_json(marker["key"]) != canonical_json(key):
            return None
        facts = marker["text"]
        for name in _LICENCES:
            facts[name] = DemoFile(**{**facts[name], "path": folder / facts[name]["path"]})
            if file_sha256(facts[name].path) != facts[name].sha256:
                return None
        return DemoText(**facts, reused=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None
