"""The demonstration's text: what is harvested from hand-made trees, to the byte."""

from __future__ import annotations

import ast
import gc
import hashlib
import io
import itertools
import json
import re
import sysconfig
import textwrap
import tokenize
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from rewarm.errors import EnvironmentFault
from rewarm.stages import demo_text
from rewarm.stages.demo_text import (
    HELD_OUT_MODULE_SHARE,
    DemoLimits,
    DemoText,
    harvest_demo_text,
    is_held_out_module,
)


def named(prefix: str, *, held_out: bool) -> str:
    """Return a module name on the wanted side of the split."""
    names = (f"{prefix}{index}" for index in itertools.count())
    return next(name for name in names if is_held_out_module(name) is held_out)


KEPT, HELD = named("kept", held_out=False), named("held", held_out=True)

PROSE = (
    "The archive is opened for reading and its members are listed in the order in which they were "
    "written, which need not be the order of their names. Members that cannot be read are skipped "
    "and a warning tells which of them were left out."
)


def module_source(topic: str, *, parameters: str = "source, target") -> str:
    """Return a module of documented prose and of code long enough to be kept."""
    lines = "\n".join(f"    total += {parameters.split(',')[0]} * {n}  # add" for n in range(12))
    return (
        f'"""Handle the {topic} of this tiny library.\n\n{PROSE} It is about {topic}.\n"""\n\n'
        f"# a comment about {topic}\n"
        f"def convert_{topic}({parameters}):\n"
        f'    """Convert every {topic} of the source into a target."""\n'
        f"    total = 0\n{lines}\n    return total\n"
    )


def module_prose(module: str, topic: str) -> str:
    """Return the prose that the source of a module holds."""
    return (
        f"{module}\n\nHandle the {topic} of this tiny library.\n\n{PROSE} It is about {topic}.\n\n"
        f"{module}.convert_{topic}\n\nConvert every {topic} of the source into a target."
    )


def write_tree(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def harvest(
    folder: Path,
    library: Path,
    packages: dict[str, Path] | None = None,
    *,
    limits: DemoLimits | None = None,
    topics: dict[str, str] | None = None,
    descriptions: dict[str, str] | None = None,
    visited: list[tuple[str, int]] | None = None,
) -> DemoText:
    trees = [demo_text._Tree.of_folder(name, root) for name, root in (packages or {}).items()]
    seen = [] if visited is None else visited
    return demo_text._harvest(
        folder,
        key={"test": 1},
        limits=limits or DemoLimits(),
        progress=lambda what, num_files: seen.append((what, num_files)),
        library=demo_text._Tree.of_folder("stdlib", library),
        packages=trees,
        topics=topics or {},
        descriptions=descriptions or {},
    )


def records(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ids(path: Path) -> list[str]:
    return [record["id"] for record in records(path)]


# --- the split -----------------------------------------------------------------------------------


def test_the_split_is_the_one_of_the_corpus_by_group() -> None:
    for name in ("shutil", "asyncio.tasks", "naïve", ""):
        digest = hashlib.blake2b(name.encode("utf-8"), digest_size=8).digest()
        fraction = int.from_bytes(digest, "big") / 2**64
        assert is_held_out_module(name, fraction) is False
        assert is_held_out_module(name, fraction + 1e-9) is True


def test_the_split_holds_out_the_stated_share() -> None:
    held = sum(is_held_out_module(f"module{index}") for index in range(20_000))
    assert held / 20_000 == pytest.approx(HELD_OUT_MODULE_SHARE, abs=0.006)


def test_the_order_of_reading_does_not_begin_with_what_is_held_out() -> None:
    names = {f"module{index}": Path() for index in range(2_000)}
    first = demo_text._Tree("t", names).modules_in_fair_order()[:500]
    assert sum(map(is_held_out_module, first)) / 500 == pytest.approx(0.08, abs=0.04)


# --- code without prose --------------------------------------------------------------------------

STRIPPED = [
    (
        '"""Doc."""\nimport os  # why\n\n\n\n# a\n# b\nX = "# no comment"\n',
        'import os\n\nX = "# no comment"\n',
    ),
    (
        'def f(a):\n    """Doc\n\n    more.\n    """\n    # comment\n    return a\n',
        "def f(a):\n\n    return a\n",
    ),
    ('class A:\n    """Only this."""\n', "class A:\n    pass\n"),
    ('class A:\n    "one"\n    "two"\n\n\nb = 1\n', "class A:\n    pass\n\nb = 1\n"),
    ('def f(): "doc"\n', "def f(): pass\n"),
    ('def f(): "doc"; return 1\n', "def f(): return 1\n"),
    ('def é(): "dôc"; return "é"\n', 'def é(): return "é"\n'),
    ('class A:\n    x = 1; "about x"\n    ("y" \n     "z")\n    w = 2\n', None),
    ("if a:\n    'text'\nelif b:\n    'text'\nelse:\n    'text'\n", None),
    ("try:\n    'a'\nexcept E:\n    'b'\n    f()\nelse:\n    'c'\nfinally:\n    'd'\n", None),
    ("match x:\n    case 1:\n        'one'\n    case _:\n        'other'\n        f()\n", None),
    (
        "async def f():\n    'doc'\n    async with a:\n        'b'\n    for i in x:\n        'c'\n",
        None,
    ),
    (
        'x = """a\n\n\n\n# kept\n"""  # gone\ny = r"\\"  "#"\n',
        'x = """a\n\n\n\n# kept\n"""\ny = r"\\"  "\n',
    ),
    ("x = 'it''s # in' \"\"'#'  # out\n", "x = 'it''s # in' \"\"'#'\n"),
    ("x = '\\'#' + \"\\\"#\"  # out\n", "x = '\\'#' + \"\\\"#\"\n"),
    ("x = f'{a!r:#x} # in'  # out\n", "x = f'{a!r:#x} # in'\n"),
    ("x = [  # a\n    1,\n    # b\n    2,  # c\n]\n", "x = [\n    1,\n    2,\n]\n"),
    ("x = 1 \\\n# c\ny = 2\n", None),
    ("x = 'a\\\n# in'\n", "x = 'a\\\n# in'\n"),
    ("\n\n# only\n", "\n"),
]


class WithoutStrings(ast.NodeTransformer):
    """Removes the statements that are only a string, the slow and certain way."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list) and block:
                kept = [part for part in block if not is_string(part)]
                setattr(node, field, kept or [ast.Pass()])
        return node


def is_string(node: Any) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


@pytest.mark.parametrize(("source", "expected"), STRIPPED)
def test_stripped_code_is_the_same_program(source: str, expected: str | None) -> None:
    code = demo_text._strip_prose(source, ast.parse(source))
    assert ast.dump(ast.parse(code)) == ast.dump(WithoutStrings().visit(ast.parse(source)))
    if expected is not None:
        assert code == expected


def test_stripped_code_of_real_modules_is_the_same_program() -> None:
    for module in (argparse_path(), Path(textwrap.__file__), Path(ast.__file__)):
        source = module.read_text(encoding="utf-8")
        code = demo_text._strip_prose(source, ast.parse(source))
        assert ast.dump(ast.parse(code)) == ast.dump(WithoutStrings().visit(ast.parse(source)))
        assert len(code) < 0.95 * len(source)
        tokens = tokenize.generate_tokens(io.StringIO(code).readline)
        assert all(token.type != tokenize.COMMENT for token in tokens)


def argparse_path() -> Path:
    return Path(sysconfig.get_path("stdlib")) / "argparse.py"


def test_what_no_longer_parses_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    source = 'x = f"a"  # c\n'
    monkeypatch.setattr(demo_text, "_COMMENTS", re.compile('()a"'))
    with pytest.raises(demo_text._Unusable, match="unparsable"):
        demo_text._strip_prose(source, ast.parse('x = f"a"'))


def test_tables_and_snippets_are_not_code() -> None:
    table = "names = {\n" + "".join(f'    "{n:08d}": "{n:08d}",\n' for n in range(50)) + "}\n"
    with pytest.raises(demo_text._Unusable, match="table of constants"):
        demo_text._new_text(table, ast.parse(table))
    with pytest.raises(demo_text._Unusable, match="code too short"):
        demo_text._new_text("x = 1\n", ast.parse("x = 1"))


# --- prose ---------------------------------------------------------------------------------------


def test_prose_keeps_sentences_and_drops_code() -> None:
    docstring = """\
    Return the :func:`~shutil.move` of a ``tree``, see `the manual <https://x.org/a>`_ [1]_.

    Example
    -------
    >>> move(1)
    2

    Literal blocks vanish::

        move(tree)

        tree = None

    but the text after them stays, *emphasis* and **weight** without their stars.

    .. note:: A note is prose.

    .. code-block:: python

        import shutil

    ```python
    if fenced:
        pass
    ```

    x = compute(1)

    import os

    Write to somebody@example.org
    or rather do not.

    Parameters
    ----------
    tree : path
        Where the tree begins.

    1 2 3 4 5 6 7 8 9 (ab, cd)
    """
    assert demo_text._prose(demo_text._clean(docstring)) == textwrap.dedent(
        """\
        Return the shutil.move of a tree, see the manual.

        Literal blocks vanish:

        but the text after them stays, emphasis and weight without their stars.

        A note is prose.

        or rather do not.

        Parameters
        tree : path
            Where the tree begins."""
    )


def test_prose_keeps_tokens_in_angle_brackets_and_drops_html() -> None:
    text = '<p align="center">The token <pad> fills the end of a sequence.</p>'
    assert demo_text._prose(text) == "The token <pad> fills the end of a sequence."


def test_control_characters_and_lone_surrogates_are_replaced() -> None:
    assert demo_text._clean("  a\x00b\ud800c\u2028d\te ") == "a b c d       e "


def test_readme_that_is_mostly_markup_is_left_out() -> None:
    badges = "\n".join(f"[![b](https://x.org/{n}.svg)](https://x.org/{n})" for n in range(30))
    assert demo_text._readme_text(f"# Title\n\n{PROSE}\n") == PROSE
    with pytest.raises(demo_text._Unusable, match="mostly markup"):
        demo_text._readme_text(f"{badges}\n\n{PROSE}")
    with pytest.raises(demo_text._Unusable, match="too short"):
        demo_text._readme_text("Title\n=====\n\nA small package.")


# --- questions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("Copy a whole tree of files. It goes on.", "Copy a whole tree of files."),
        ("Copy a whole\ntree of files\n\nMore.", "Copy a whole tree of files."),
        ("copytree(a, b)\n\nCopy a whole tree of files.", "Copy a whole tree of files."),
        ("Copy e.g. A and B of it. More.", "Copy e.g. A and B of it."),
        ("Copy a whole tree of files\nArgs:\n    a: it", "Copy a whole tree of files."),
        ("Copy the :class:`~os.PathLike` of a `tree`.", "Copy the os.PathLike of a tree."),
        ("Too short here.", None),
        ("lower case beginning of a sentence.", None),
        ("The sum of all values is defined as", None),
        ("The values of the parameters are:", None),
        ("Return {a: b} of the whole mapping.", None),
        ("See the documentation of the other one.", None),
        ("Gibt die Größe eines ganzen Baumes zurück.", None),
        ("A" + " very" * 70 + " long sentence.", None),
        (":param a: the first of all parameters", None),
        ("x" * 30, None),
    ],
)
def test_first_sentence(docstring: str, sentence: str | None) -> None:
    assert demo_text._first_sentence(docstring) == sentence


def test_pairs_of_a_module(tmp_path: Path) -> None:
    source = textwrap.dedent(
        '''\
        """Work with trees of files and folders."""

        def copytree(src, dst, /, symlinks=False, *, ignore=None):
            """Copy a whole tree of files. Then stop."""

        def variadic(*args):
            """Take any number of the arguments."""

        def _private(a):
            """Do what nobody else should do."""

        def undocumented(a): ...

        if True:
            def guarded(one):
                """Stand inside of a condition."""

        class Tree:
            """Represent a tree of the files."""

            def prune(self, depth):
                """Cut the tree at this depth."""

            @staticmethod
            def plant(seed):
                """Let a tree grow from seed."""

            def grow(self):
                """Grow the tree by one level."""

            def many(self, a, b, c, d, e, f, g, h, i):
                """Take more parameters than it should."""
        '''
    )
    library = write_tree(tmp_path / "lib", {f"{KEPT}.py": source + module_source("wood")})
    found = harvest(tmp_path / "out", library)
    pairs = {(record["question"], record["answer"]) for record in records(found.qa.path)}
    name = KEPT
    assert pairs == {
        (f"What is the module {name} for?", "Work with trees of files and folders."),
        (f"What does {name}.copytree do?", "Copy a whole tree of files."),
        (f"What are the parameters of {name}.copytree?", "src, dst, symlinks, ignore"),
        (f"What does {name}.variadic do?", "Take any number of the arguments."),
        (f"What does {name}.guarded do?", "Stand inside of a condition."),
        (f"What are the parameters of {name}.guarded?", "one"),
        (f"What is the class {name}.Tree?", "Represent a tree of the files."),
        (f"What does {name}.Tree.prune do?", "Cut the tree at this depth."),
        (f"What are the parameters of {name}.Tree.prune?", "depth"),
        (f"What does {name}.Tree.plant do?", "Let a tree grow from seed."),
        (f"What are the parameters of {name}.Tree.plant?", "seed"),
        (f"What does {name}.Tree.grow do?", "Grow the tree by one level."),
        (f"What does {name}.Tree.many do?", "Take more parameters than it should."),
        (f"What does {name}.convert_wood do?", "Convert every wood of the source into a target."),
        (f"What are the parameters of {name}.convert_wood?", "source, target"),
    }
    record = next(item for item in records(found.qa.path) if item["answer"] == "depth")
    assert record == {
        "id": f"stdlib:{name}.Tree.prune:parameters",
        "module": name,
        "question": f"What are the parameters of {name}.Tree.prune?",
        "answer": "depth",
        "text": f"Question: What are the parameters of {name}.Tree.prune?\nAnswer: depth",
    }


def test_worn_out_answers_and_repeated_names_are_dropped(tmp_path: Path) -> None:
    functions = "".join(
        f'def f{index}():\n    """Do the very same thing again."""\n' for index in range(5)
    )
    twice = 'def f0():\n    """Do the thing in another way."""\n'
    library = write_tree(
        tmp_path / "lib", {f"{KEPT}.py": module_source("wood") + functions + twice}
    )
    found = harvest(tmp_path / "out", library)
    answers = [record["answer"] for record in records(found.qa.path)]
    assert answers.count("Do the very same thing again.") == 3
    assert "Do the thing in another way." not in answers
    assert found.num_left_out["answer repeated"] == 2
    assert found.num_left_out["question repeated"] == 1


# --- the harvest ---------------------------------------------------------------------------------


def test_documents_of_each_file_exactly(tmp_path: Path) -> None:
    library = write_tree(tmp_path / "lib", {f"{KEPT}.py": module_source("wood")})
    package = write_tree(tmp_path / "site", {"pack/__init__.py": module_source("iron")})
    found = harvest(
        tmp_path / "out",
        library,
        {"pack": package},
        topics={"with": f"The statement\n\n{PROSE}\n\n   x ::= y"},
        descriptions={"pack": f"Pack\n====\n\n{PROSE} Yes."},
    )
    assert not is_held_out_module("pack")
    assert records(found.old.path) == [
        {"id": "description:pack", "text": f"{PROSE} Yes."},
        {
            "id": "pack:pack",
            "text": module_prose("pack", "iron"),
        },
        {
            "id": f"stdlib:{KEPT}",
            "text": module_prose(KEPT, "wood"),
        },
        {"id": "topic:with", "text": f"The statement\n\n{PROSE}"},
    ]
    code = "".join(f"    total += source * {index}\n" for index in range(12))
    assert records(found.new.path) == [
        {
            "id": f"stdlib:{KEPT}",
            "text": f"def convert_wood(source, target):\n\n    total = 0\n{code}    return total\n",
        }
    ]
    for file, count in ((found.old, 4), (found.new, 1), (found.qa, 6)):
        data = file.path.read_bytes()
        assert b"\r" not in data
        assert file.num_documents == count == data.count(b"\n")
        assert file.num_bytes == len(data)
        assert file.num_characters == sum(len(record["text"]) for record in records(file.path))
        assert file.sha256 == hashlib.sha256(data).hexdigest()
        assert "Python Software Foundation License" in file.licence


def test_held_out_modules_appear_in_the_questions_alone(tmp_path: Path) -> None:
    library = write_tree(
        tmp_path / "lib",
        {
            f"{KEPT}.py": module_source("wood"),
            f"{HELD}.py": module_source("gold", parameters="ore"),
        },
    )
    held_package = named("pack", held_out=True)
    package = write_tree(tmp_path / "site", {f"{held_package}.py": module_source("iron")})
    found = harvest(tmp_path / "out", library, {"pack": package})
    for file in (found.old, found.new):
        text = file.path.read_text(encoding="utf-8")
        assert "wood" in text
        assert "gold" not in text
        assert "iron" not in text
    assert {record["module"] for record in records(found.qa.path)} == {KEPT, HELD, held_package}
    # the module, the function, and the parameters only where no trained module has the same
    assert found.num_held_out_qa_pairs == 5
    assert found.num_left_out["prose of a held-out module"] == 2


def test_a_held_out_answer_that_is_known_elsewhere_is_dropped(tmp_path: Path) -> None:
    shared = 'def {}():\n    """Tell what both of them tell."""\n'
    library = write_tree(
        tmp_path / "lib",
        {
            f"{KEPT}.py": module_source("wood") + shared.format("_private"),
            f"{HELD}.py": module_source("gold", parameters="source, target")
            + shared.format("open"),
        },
    )
    found = harvest(tmp_path / "out", library)
    held = [record for record in records(found.qa.path) if record["module"] == HELD]
    assert [record["answer"] for record in held] == [
        "Convert every gold of the source into a target.",
        "Handle the gold of this tiny library.",
    ]
    assert found.num_left_out["held-out answer known elsewhere"] == 2


def test_unusable_files_are_counted_by_reason(tmp_path: Path) -> None:
    library = write_tree(
        tmp_path / "lib",
        {
            f"{KEPT}.py": module_source("wood"),
            "latin.py": b"x = '\xe9'\n",
            "odd.py": b"# coding: no-such-coding\n",
            "broken.py": "def f(:\n",
            "zero.py": b"x = 1\x00\n",
            "large.py": "#" * 1_000_001,
            "bare.py": "x = 1\n",
        },
    )
    (library / "gone.py").symlink_to(tmp_path / "nowhere")
    found = harvest(tmp_path / "out", library)
    assert {reason: n for reason, n in found.num_left_out.items() if n} == {
        "undecodable": 2,
        "unparsable": 2,
        "too large": 1,
        "unreadable": 1,
        "prose too short": 1,
        "code too short": 1,
    }
    assert ids(found.old.path) == [f"stdlib:{KEPT}"]


def test_declared_encodings_and_line_ends_are_understood(tmp_path: Path) -> None:
    source = "# coding: latin-1\r\n" + module_source("wood").replace("\n", "\r\n")
    source = source.replace("tiny", "tíny")
    library = write_tree(tmp_path / "lib", {f"{KEPT}.py": source.encode("latin-1")})
    found = harvest(tmp_path / "out", library)
    assert "Handle the wood of this tíny library." in records(found.old.path)[0]["text"]
    assert "\r" not in records(found.new.path)[0]["text"]


def test_tests_and_vendored_files_are_never_read(tmp_path: Path) -> None:
    source = module_source("wood")
    skipped = (
        "test/a.py tests/a.py idlelib/a.py lib2to3/a.py x/_vendor/a.py encodings/a.py "
        "pydoc_data/topics.py site-packages/a.py test_a.py conftest.py not-a-name.py x/__main__.py"
    )
    files: dict[str, str | bytes] = dict.fromkeys(skipped.split(), source)
    library = write_tree(tmp_path / "lib", {**files, f"{KEPT}.py": source, f"{KEPT}.txt": source})
    visited: list[tuple[str, int]] = []
    harvest(tmp_path / "out", library, visited=visited)
    assert visited == [("stdlib", 1)]


def many_modules(root: Path, prefix: str, count: int) -> Path:
    return write_tree(
        root, {f"{prefix}{n}.py": module_source(f"{prefix}{n}") for n in range(count)}
    )


def test_limits_are_kept_and_used(tmp_path: Path) -> None:
    library = many_modules(tmp_path / "lib", "part", 30)
    limits = DemoLimits(num_old_characters=3_000, num_new_characters=2_000, num_qa_pairs=20)
    found = harvest(tmp_path / "out", library, limits=limits)
    assert 2_500 < found.old.num_characters <= 3_000
    assert 1_500 < found.new.num_characters <= 2_000
    assert found.qa.num_documents == 20
    assert found.num_left_out["document over the limit"] > 30
    assert found.num_left_out["question over the limit"] > 20
    # a fair sample: not the first names of the alphabet
    assert (
        ids(found.old.path)
        != sorted(f"stdlib:part{n}" for n in range(30))[: found.old.num_documents]
    )


def test_no_package_dominates(tmp_path: Path) -> None:
    library = write_tree(tmp_path / "lib", {f"{KEPT}.py": module_source("wood")})
    packages = {
        "big": many_modules(tmp_path / "big", "big", 60),
        "small": many_modules(tmp_path / "small", "small", 20),
    }
    limits = DemoLimits(num_old_characters=8_000)
    found = harvest(tmp_path / "out", library, packages, limits=limits)
    sizes = dict.fromkeys(("stdlib", "big", "small"), 0)
    for record in records(found.old.path):
        sizes[record["id"].partition(":")[0]] += len(record["text"])
    assert 300 < sizes["stdlib"] < 500
    assert abs(sizes["big"] - sizes["small"]) < 500
    assert sum(sizes.values()) > 7_400


def test_package_files_with_little_prose_are_not_parsed(tmp_path: Path) -> None:
    library = write_tree(tmp_path / "lib", {f"{KEPT}.py": module_source("wood")})
    package = write_tree(tmp_path / "site", {"bare.py": "def broken(:\n" + "x = 1\n" * 50})
    found = harvest(tmp_path / "out", library, {"pack": package})
    assert found.num_left_out["package file with little prose"] == 1
    assert "unparsable" not in found.num_left_out


def test_repeated_docstrings_and_documents_are_kept_once(tmp_path: Path) -> None:
    library = write_tree(
        tmp_path / "lib", {f"{KEPT}.py": module_source("wood"), "other1.py": module_source("wood")}
    )
    assert not is_held_out_module("other1")
    found = harvest(tmp_path / "out", library)
    assert found.old.num_documents == found.new.num_documents == 1
    assert found.num_left_out["prose too short"] == 1
    assert found.num_left_out["document repeated"] == 1


def test_two_harvests_are_the_same_to_the_byte_and_sorted(tmp_path: Path) -> None:
    packages = {"pack": many_modules(tmp_path / "pack", "pack", 9)}
    library = many_modules(tmp_path / "lib", "part", 12)
    first = harvest(tmp_path / "one", library, packages)
    second = harvest(tmp_path / "two", library, packages)
    for name in ("old", "new", "qa"):
        one, two = (getattr(found, name).path for found in (first, second))
        assert one.read_bytes() == two.read_bytes()
        assert ids(one) == sorted(ids(one))
        assert len(ids(one)) > 10
    marker = "harvest.json"
    assert (tmp_path / "one" / marker).read_bytes() == (tmp_path / "two" / marker).read_bytes()


def test_a_python_without_source_is_told(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    with pytest.raises(EnvironmentFault, match=r"old\.jsonl was found.*without its source files"):
        harvest(tmp_path / "out", tmp_path / "lib")
    assert not (tmp_path / "out").exists()
    assert gc.isenabled()


def test_an_interrupt_leaves_no_file(tmp_path: Path) -> None:
    library = many_modules(tmp_path / "lib", "part", 5)

    def interrupt(what: str, num_files: int) -> None:
        if num_files == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo_text._harvest(
            tmp_path / "out",
            key={},
            limits=DemoLimits(),
            progress=interrupt,
            library=demo_text._Tree.of_folder("stdlib", library),
            packages=[],
            topics={},
            descriptions={},
        )
    assert not (tmp_path / "out").exists()
    assert gc.isenabled()


# --- the machine at hand -------------------------------------------------------------------------


def write_distribution(
    site: Path, name: str, *, requires: list[str], files: dict[str, str | bytes], about: str = ""
) -> None:
    folder = f"{name.replace('-', '_')}-1.5.dist-info"
    required = "".join(f"Requires-Dist: {item}\n" for item in requires)
    write_tree(
        site,
        {
            **files,
            f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n"
            f"{required}\n{about}",
            f"{folder}/RECORD": "".join(f"{file},,\n" for file in files) + f"{folder}/METADATA,,\n",
        },
    )


def test_dependencies_are_followed_without_extras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_distribution(
        tmp_path,
        "rewarm",
        requires=["demo-One>=1", "demo_absent ; python_version > '3'", "demo-four; extra == 'x'"],
        files={},
    )
    write_distribution(tmp_path, "demo-one", requires=["demo.two (>=2)"], files={})
    write_distribution(tmp_path, "demo-two", requires=["demo-one"], files={}, about="About two.")
    write_distribution(tmp_path, "demo-four", requires=[], files={})
    monkeypatch.syspath_prepend(str(tmp_path))
    found = demo_text._dependency_distributions()
    assert {name: item.version for name, item in found.items()} == {
        "demo-one": "1.5",
        "demo-two": "1.5",
    }
    assert demo_text._description(found["demo-two"]).strip() == "About two."


def test_a_checkout_that_is_not_installed_has_the_same_dependencies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = tomllib.loads(
        (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    )["project"]
    assert list(demo_text._DEPENDENCIES) == demo_text._required_names(project["dependencies"])
    asked: list[str] = []

    def absent(name: str) -> Any:
        asked.append(name)
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    monkeypatch.setattr(metadata, "distribution", absent)
    assert demo_text._dependency_distributions() == {}
    assert sorted(asked) == sorted(["rewarm", *demo_text._DEPENDENCIES])


def test_files_of_a_distribution(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "pack/__init__.py": "",
        "pack/inner/deep.py": "",
        "pack/tests/test_x.py": "",
        "pack/data.json": "",
        "single.py": "",
    }
    write_distribution(tmp_path, "pack", requires=[], files=files)
    distribution = metadata.Distribution.at(tmp_path / "pack-1.5.dist-info")
    tree = demo_text._Tree.of_distribution("pack", distribution)
    assert tree.paths == {
        "pack": tmp_path / "pack/__init__.py",
        "pack.inner.deep": tmp_path / "pack/inner/deep.py",
        "single": tmp_path / "single.py",
    }


def test_topics_are_read_without_an_import(tmp_path: Path) -> None:
    path = tmp_path / "topics.py"
    path.write_text("# as pydoc writes it\ntopics = {'with': 'The with\\n'\n 'statement', 1: 2}\n")
    assert demo_text._topics(path) == {"with": "The with\nstatement", "1": "2"}
    assert demo_text._topics(tmp_path / "absent.py") == {}
    path.write_text("x = 1\n")
    assert demo_text._topics(path) == {}


@pytest.fixture
def tiny_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python with four modules, one topic and one installed package."""
    library = many_modules(tmp_path / "lib", "part", 4)
    write_tree(library, {"pydoc_data/topics.py": f"topics = {{'with': {PROSE!r}}}\n"})
    site = tmp_path / "site"
    files: dict[str, str | bytes] = {"packed/iron.py": module_source("iron")}
    write_distribution(site, "packed", requires=[], files=files, about=f"{PROSE} It is packed.")
    found = metadata.Distribution.at(site / "packed-1.5.dist-info")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(library))
    monkeypatch.setattr(demo_text, "_dependency_distributions", lambda: {"packed": found})
    return tmp_path


def test_the_machine_at_hand_is_harvested_once(tiny_machine: Path) -> None:
    folder = tiny_machine / "demo"
    visited: list[str] = []
    first = harvest_demo_text(folder, progress=lambda what, num_files: visited.append(what))
    assert visited == ["stdlib"] * 4 + ["packed"]
    assert {"description:packed", "packed:packed.iron", "topic:with"} < set(ids(first.old.path))
    assert first.reused is False
    marker = json.loads((folder / "harvest.json").read_text(encoding="utf-8"))
    assert marker["key"]["packages"] == {"packed": "1.5"}

    second = harvest_demo_text(folder, progress=lambda what, num_files: visited.append(what))
    assert len(visited) == 5
    assert second.reused is True
    assert (second.old, second.new, second.qa) == (first.old, first.new, first.qa)
    assert second.num_left_out == first.num_left_out
    assert second.num_held_out_qa_pairs == first.num_held_out_qa_pairs


@pytest.mark.parametrize("damage", ["altered", "missing", "marker", "limits"])
def test_a_harvest_that_no_longer_holds_is_done_again(tiny_machine: Path, damage: str) -> None:
    folder = tiny_machine / "demo"
    first = harvest_demo_text(folder)
    before = first.qa.path.read_bytes()
    limits = DemoLimits()
    if damage == "altered":
        first.qa.path.write_bytes(before[:-1])
    elif damage == "missing":
        first.qa.path.unlink()
    elif damage == "marker":
        (folder / "harvest.json").write_text('{"key": 1')
    else:
        limits = DemoLimits(num_qa_pairs=5)
    second = harvest_demo_text(folder, limits=limits)
    assert second.reused is False
    if damage == "limits":
        assert second.qa.num_documents == 5
    else:
        assert second.qa.path.read_bytes() == before


def test_long_documents_are_cut_where_they_allow_it() -> None:
    paragraphs = ["word " * 300, "more " * 400, "last " * 10]
    prose = {"id": "a", "text": "\n\n".join(paragraphs)}
    cut = demo_text._in_pieces([prose], may_break_before=demo_text._begins_paragraph)
    assert [piece["id"] for piece in cut] == ["a", "a#2"]
    assert [piece["text"] for piece in cut] == ["\n\n".join(paragraphs[:2]), paragraphs[2]]

    functions = [f"@cache\ndef f{i}():\n    x = {'1 + ' * 800}1\n    return x" for i in range(3)]
    code = {"id": "b", "text": "\n".join(functions)}
    cut = demo_text._in_pieces([code], may_break_before=demo_text._begins_statement)
    assert [piece["text"] for piece in cut] == functions
    short = [{"id": "c", "text": "one\n\ntwo"}]
    assert demo_text._in_pieces(short, may_break_before=demo_text._begins_paragraph) == short
