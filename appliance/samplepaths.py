"""Paths of the kinds that models get wrong, drawn by seed: one stratum for each kind. Pure.

The path benchmark asks for them, and the tokenizer check has both tokenizers read them. The same
seed gives the same paths, on every machine.
"""

import unicodedata
from collections.abc import Callable, Mapping
from random import Random

_WORDS = (
    *("engine", "config", "character", "creation", "forest", "platform", "docker", "compose"),
    *("report", "annual", "summary", "network", "adapter", "session", "token", "cache", "parser"),
    *("build", "deploy", "invoice", "payment", "retry", "worker", "matrix", "shader", "texture"),
    *("player", "level", "profile", "account", "stream", "filter", "router", "schema", "fixture"),
    *("kernel", "driver", "module", "plugin", "theme", "widget", "layout", "chart", "table"),
    *("metric", "alert", "backup", "archive", "import", "export", "legacy", "shared", "assets"),
)
_ROOTS = ("/home/dev", "/srv", "/opt", "/var/lib", "/Users/Anna/Projects", "~", ".", "packages")
_COMMON = ("py", "ts", "cpp", "rs", "json", "md", "yml", "go", "toml")
_UNUSUAL = (
    *(".tscn", ".ipynb", ".d.ts", ".tar.zst", ".code-workspace", ".gd.uid", ".module.scss"),
    *(".spec.tsx", ".pb.go", ".hpp.in", ".sql.gz", ".md5", ".7z.001", ".csproj.user", ".F90"),
)
_BARE = ("Makefile", "Dockerfile.dev", ".env.local", ".gitignore", "CODEOWNERS", "BUILD.bazel")
# Latin with marks, Greek, Cyrillic, Chinese, Japanese, Korean, and an emoji.
_FOREIGN = (
    *("Größe", "façade", "naïve", "Übersicht", "señal", "smörgås", "crème brûlée"),
    *("λόγος", "отчёт", "данные", "файл", "配置", "测试数据", "データ", "設定ファイル", "한국어"),
    *("résumé", "Łódź", "İstanbul", "ångström", "🚀launch"),
)
_TWINS = (
    *("modern", "modem", "clear", "dear", "burn", "bum", "vvorker", "worker", "Il1lI", "O0oO0"),
    *("S5s", "B8", "Z2z", "l10n", "1i0n", "i18n", "il8n", "rnatrix", "matrix", "cache", "caehe"),
    *("v1.10.1", "v1.1O.1", "v11.0.1", "fi1e", "file", "utlis", "utils", "indexx", "index"),
)


def _words(rng: Random, least: int, most: int) -> list[str]:
    return [rng.choice(_WORDS) for _ in range(rng.randint(least, most))]


def _posix(rng: Random, parts: list[str], name: str) -> str:
    return "/".join((rng.choice(_ROOTS), *parts, name))


def _file(rng: Random, stem: str) -> str:
    return f"{stem}.{rng.choice(_COMMON)}"


def _cased(rng: Random) -> str:
    words = _words(rng, 1, 3)
    titled = "".join(word.title() for word in words)
    styles = (titled, titled[0].lower() + titled[1:], titled.upper(), titled.swapcase())
    return rng.choice((*styles, titled[:2].upper() + titled[2:]))


def _case(rng: Random) -> str:
    folders = [_cased(rng) for _ in range(rng.randint(2, 4))]
    return _posix(rng, folders, _file(rng, _cased(rng)))


def _marked(rng: Random) -> str:
    first, *others = _words(rng, 2, 4)
    return first + "".join(rng.choice("-_.-_") + word for word in others)


def _marks(rng: Random) -> str:
    folders = [_marked(rng) for _ in range(rng.randint(1, 3))]
    return _posix(rng, folders, _file(rng, f"{_marked(rng)}-v{rng.randint(1, 9)}"))


def _repeated(rng: Random) -> str:
    again, other = _words(rng, 2, 2)
    shapes = ([again] * 2, [again] * 3, [again, other, again], [other, again, again, other])
    return _posix(rng, rng.choice(shapes), _file(rng, again))


def _spaced(rng: Random) -> str:
    words = [word.title() for word in _words(rng, 2, 3)]
    tail = rng.choice(("", "", f" ({rng.randint(1, 9)})", f" - {rng.choice(_WORDS)}"))
    return " ".join(words) + tail


def _spaces(rng: Random) -> str:
    folders = [_spaced(rng) for _ in range(rng.randint(1, 3))]
    return _posix(rng, folders, _file(rng, _spaced(rng)))


def _deep(rng: Random) -> str:
    return _posix(rng, _words(rng, 9, 14), _file(rng, rng.choice(_WORDS)))


def _extensions(rng: Random) -> str:
    stem = rng.choice(_WORDS)
    name = rng.choice((stem, f"{stem}_{rng.choice(_WORDS)}")) + rng.choice(_UNUSUAL)
    bare = rng.choice(_BARE)
    return _posix(rng, _words(rng, 1, 3), name if rng.random() < 0.8 else bare)


def _unicode(rng: Random) -> str:
    parts = [rng.choice(_FOREIGN) for _ in range(rng.randint(1, 3))]
    path = _posix(rng, parts, _file(rng, rng.choice(_FOREIGN)))
    # macOS hands out decomposed names, everybody else composed ones
    return unicodedata.normalize("NFD" if rng.random() < 0.3 else "NFC", path)


def _lookalikes(rng: Random) -> str:
    folders = [rng.choice(_TWINS) for _ in range(rng.randint(2, 3))]
    code = "".join(rng.choice("0O1lI5S8B2Z") for _ in range(6))
    return _posix(rng, folders, _file(rng, f"{rng.choice(_TWINS)}_{code}"))


def _windows(rng: Random) -> str:
    roots = ("C:\\Users\\Anna", "D:\\Projects", "E:", "\\\\nas01\\share", "C:\\Program Files (x86)")
    folders = [rng.choice((_cased, _spaced, _marked))(rng) for _ in range(rng.randint(1, 4))]
    return "\\".join((rng.choice(roots), *folders, _file(rng, _cased(rng))))


STRATA: Mapping[str, Callable[[Random], str]] = {
    "case": _case,
    "marks": _marks,
    "repeated": _repeated,
    "spaces": _spaces,
    "deep": _deep,
    "extensions": _extensions,
    "unicode": _unicode,
    "lookalikes": _lookalikes,
    "windows": _windows,
}


def distinct_paths(stratum: str, count: int, rng: Random) -> tuple[str, ...]:
    """Return ``count`` different paths of a stratum."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[STRATA[stratum](rng)] = None
    return tuple(found)


def mixed_paths(count: int, seed: int) -> tuple[str, ...]:
    """Return ``count`` different paths, each stratum in its turn."""
    rng, found = Random(seed), dict[str, None]()  # noqa: S311 - a draw that can be repeated
    while len(found) < count:
        for draw in STRATA.values():
            found[draw(rng)] = None
    return tuple(found)[:count]
