"""The sources of the corpus: in which packages of Debian they are, which of their files, and in what form.

Names of packages change from release to release: python3.11-doc is python3.13-doc in the next. So they are patterns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pythia_gguf.data.corpus_forms import books, dictionary, manuals, pages, texts

Form = Callable[[str, Mapping[str, bytes]], Iterator[tuple[str, str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One source of the corpus.

    name      what its documents are labelled with
    packages  patterns of their names
    files     pattern of the paths that documents are made of
    form      makes documents of them
    licence   in short; the package has the whole text
    """

    name: str
    packages: tuple[str, ...]
    files: re.Pattern[str]
    form: Form
    licence: str


def shown_name(pattern: str) -> str:
    """The pattern of a name as people read it."""
    return re.sub(r"[()?\\]", "", pattern.replace(r"\d+", "N"))


def _source(name: str, packages: str, files: str, form: Form, licence: str) -> Source:
    return Source(name=name, packages=tuple(packages.split()), files=re.compile(files), form=form, licence=licence)


_DOC = r"usr/share/doc/[^/]+"
SOURCES = {
    source.name: source
    for source in (
        _source(
            "python", r"python3\.\d+-doc", rf"{_DOC}/html/(?!genindex|_|search|py-modindex).*\.html", pages, "PSF-2"
        ),
        _source("perl", "perl-doc", r"usr/share/man/man[13]/.*\.gz", manuals, "Artistic or GPL-1+"),
        _source("git", "git-doc", rf"{_DOC}/.*\.html", pages, "GPL-2"),
        _source("postgresql", r"postgresql-doc-\d+", rf"{_DOC}/html/(?!bookindex).*\.html", pages, "PostgreSQL"),
        _source(
            "manpages",
            "manpages manpages-dev",
            r"usr/share/man/man\d/.*\.gz",
            manuals,
            "copyleft of man-pages, GPL-2+, BSD",
        ),
        _source("linux", r"linux-doc(-\d+\.\d+)?", rf"{_DOC}/html/(?!genindex|_|search).*\.html", pages, "GPL-2"),
        _source(
            "devicetree",
            r"linux-doc(-\d+\.\d+)?",
            rf"{_DOC}/Documentation/devicetree/.*\.(yaml|txt|rst)(\.gz)?",
            texts,
            "GPL-2, BSD-2-Clause",
        ),
        _source("handbook", "debian-handbook", rf"{_DOC}/html/en-US/.*\.html", pages, "GPL-2+, CC-BY-SA-3.0"),
        _source(
            "debian",
            "debian-policy debian-faq developers-reference debmake-doc debian-reference-en",
            r"usr/share/(doc/debian-policy/policy\.html/(?!genindex|search|_)[^/]*|doc/debian/FAQ/[^/]*\.en"
            r"|developers-reference/(?!genindex|search|_)[^/]*|doc/debmake-doc/html/[^/]*\.en"
            r"|debian-reference/[^/]*\.en)(\.html)",
            pages,
            "GPL-2+, terms of the FAQ",
        ),
        _source("apache", "apache2-doc", rf"{_DOC}/manual/en/.*\.html", pages, "Apache-2.0"),
        _source("sqlite", "sqlite3-doc", rf"{_DOC}/.*\.html", pages, "public domain"),
        _source("jargon", "jargon-text", rf"{_DOC}/jargon\.txt\.gz", texts, "public domain"),
        _source("gcide", "dict-gcide", r"usr/share/dictd/gcide\..*", dictionary, "GPL-2+"),
        _source("bible", "sword-text-web", r"usr/share/sword/modules/.*\.bz[szv]", books, "public domain"),
        _source("anarchism", "anarchism", rf"{_DOC}/html/.*\.html", pages, "GPL-2"),
    )
}
