"""Whether a run's images suit it: their size, their classes, and which of them it has seen."""

from __future__ import annotations

from dataclasses import replace

from trifold.data.decode import printable
from trifold.doctor.case import Case
from trifold.doctor.findings import Check, Finding

LEAST_MAP = 4
"""Pixels a side of the last feature map; below, there is little left to pool."""


def resolution(case: Case) -> Check:
    """Whether resolution and total stride suit the images' size."""
    pixels, side = case.trained.preprocessing.resolution, case.dataset.median_side
    stride = case.trained.network.feature_info.reduction()[-1]
    left = -(-pixels // stride)
    number = f"{pixels:,} pixels for images of {side:,}; a total stride of {stride} leaves a map of {left}x{left}"
    found = [
        replace(finding, what="resolution")
        for finding in case.in_data
        if finding.what in ("upsampling", "downsampling")
    ]
    if left < LEAST_MAP:
        found.append(
            Finding(
                severity="warning",
                what="resolution",
                text=f"a total stride of {stride} leaves of {pixels:,} pixels a last map of {left}x{left}, under "
                f"{LEAST_MAP}x{LEAST_MAP}",
                advice="a network for small images: stride 1 in place of 2 in the stem or a stage; or more pixels",
            )
        )
    return Check(what="resolution", number=number, findings=tuple(found))


def label_order(case: Case) -> Check:
    """Whether the data's classes are the network's, in its order."""
    known, given = case.trained.classes, case.dataset.classes
    unknown = [name for name in given if name not in known]
    missing = [name for name in known if name not in given]
    if not unknown and not missing and known == given:
        return Check(what="label_order", number=f"{len(known):,} classes, the same in the same order")
    if unknown:
        text = f"{len(unknown):,} of the data's {len(given):,} classes are not known to the network, such as "
        text += f"{printable(unknown[0])!r}"
        advice = f"name classes as in training, such as {printable(known[0])!r}, or leave these out"
        return _labels("error", text, advice)
    shared = tuple(name for name in known if name in given)
    if shared != given:
        i = next(i for i, (ours, theirs) in enumerate(zip(shared, given, strict=True)) if ours != theirs)
        text = f"the same {len(given):,} classes stand in another order: place {i + 1} has {printable(given[i])!r} in "
        text += f"the data and {printable(shared[i])!r} in the network"
        return _labels("warning", text, "match outputs to classes by name, as `trifold evaluate` does, never by index")
    text = f"{len(missing):,} of the network's {len(known):,} classes have no images, such as "
    text += f"{printable(missing[0])!r}"
    return _labels("note", text, "nothing to do if they were left out on purpose")


def _labels(severity: str, text: str, advice: str) -> Check:
    found = Finding(severity=severity, what="label_order", text=text, advice=advice)
    return Check(what="label_order", number=text, findings=(found,))


def leakage(case: Case) -> Check:
    """Whether test images trained the network or chose its weights, or stand in another given split."""
    across = tuple(finding for finding in case.in_data if finding.what == "leakage")
    if not case.record.used:
        number = "the record does not say which images were used; train again to know"
        return Check(what="leakage", number=number, findings=across, looked=False)
    used = frozenset(case.record.used)
    seen = [sample for sample in case.test if sample.digest in used]
    number = f"{len(seen):,} of {len(case.test):,} test images were used in training"
    if not seen:
        return Check(what="leakage", number=number, findings=across)
    reported = case.own or any(sample.split == "test" for sample in case.test)
    found = Finding(
        # Where no split is given all images were looked at, and `use.evaluate` leaves out those that were used.
        severity="error" if reported else "warning",
        what="leakage",
        text=f"{number}, such as {printable(seen[0].name)}",
        advice="test on images that were neither trained on nor used to choose weights",
    )
    return Check(what="leakage", number=number, findings=(found, *across))
