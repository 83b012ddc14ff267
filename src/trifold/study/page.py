"""A study's page from its folder: the question, the answer in a sentence, tables, plots, and every run linked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trifold.data.decode import printable
from trifold.errors import InvalidData, InvalidInput
from trifold.report.study_contents import StudyPage
from trifold.report.study_page import draw_study
from trifold.study.ablation import Ablation, ablation_from
from trifold.study.ablation_page import ablation_page
from trifold.study.architecture_page import architecture_page
from trifold.study.coefficients import Search, search_from
from trifold.study.folder import PAGE, RECORDS, STUDY, Kept, read_study
from trifold.study.miniature import kept_miniature
from trifold.study.miniature_page import miniature_page
from trifold.study.pieces import Found
from trifold.study.search_page import search_page
from trifold.study.searched import kept_search
from trifold.study.transfer import Transfer, transfer_from
from trifold.study.transfer_page import transfer_page

Shown = Search | Ablation | Transfer


def study_from(question: Mapping[str, Any]) -> Shown:
    """The study whose `question` this was. Raises InvalidData if it is none of this version."""
    try:
        if question["kind"] == "coefficients":
            return search_from(question)
        if question["kind"] == "ablation":
            return ablation_from(question)
        if question["kind"] == "transfer":
            return transfer_from(question)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InvalidData(f"the study's question is none of this version: {error!r}") from None
    raise InvalidData(
        f"the study's kind must be coefficients, ablation, transfer, search or miniature, got {question['kind']!r:.60}"
    )


def draw(folder: str | Path) -> Path:
    """Makes the page anew from a study's folder alone and gives its path. Raises InvalidData as `read_study` does."""
    kept, path = read_study(folder), Path(folder) / PAGE
    try:
        if kept.question.get("kind") == "search":
            made = architecture_page(kept_search(Path(folder), kept), kept.about)
        elif kept.question.get("kind") == "miniature":
            made = miniature_page(kept_miniature(Path(folder)), kept.about)
        else:
            made = page(_checked(folder, kept), kept.about, kept.found)
    except InvalidInput:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        names = f"{printable(Path(folder) / STUDY)} or {RECORDS}"
        raise InvalidData(f"{names}: a field is missing or none of this version: {error!r}") from None
    draw_study(made, path)
    return path


def _checked(folder: str | Path, kept: Kept) -> Shown:
    study = study_from(kept.question)
    for number, seed in kept.found:
        if not (0 <= number < len(study.networks) and seed >= 0):
            raise InvalidData(
                f"{printable(Path(folder) / RECORDS)}: the study has no network {number} with seed {seed}"
            )
    return study


def page(study: Shown, about: Mapping[str, Any], found: Found) -> StudyPage:
    """The page of a study with what is finished of it. about: `data` and `command`."""
    if isinstance(study, Search):
        return search_page(study, about, found)
    if isinstance(study, Transfer):
        return transfer_page(study, about, found)
    return ablation_page(study, about, found)
