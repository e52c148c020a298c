"""Which preset fits what is declared, and why the others do not."""

from __future__ import annotations

from dataclasses import dataclass

from rewarm.recipe.presets import Declared

__all__ = ["Advice", "advise"]


@dataclass(frozen=True, slots=True)
class Advice:
    """A preset's name, the reasons for it, and by name why others were passed over."""

    preset: str
    reasons: tuple[str, ...]
    others: tuple[tuple[str, str], ...]


def advise(
    declared: Declared,
    *,
    budget_tokens: int | None = None,
    new_tokens: int | None = None,
    more_to_come: bool = False,
) -> Advice:
    """Return the preset to begin with.

    `new_tokens` are those of the new text, `more_to_come` says that further data sets will follow;
    None and False where that is not known. The first rule that holds decides:

    1. more data sets will follow, peak rate known: infinite
    2. strong shift, old text, new text of at least four times the budget: stability-gap
    3. strong shift, peak rate known: rewarm
    4. final rate known and above 0: reuse
    5. peak rate known: rewarm where the final rate is 0, else reuse at a tenth of the peak, assumed
    6. nothing is known of the rates: reuse, from a rate that must be given
    """
    final_known = declared.final_lr is not None and declared.final_lr > 0
    peak_known = declared.peak_lr is not None
    others: list[tuple[str, str]] = []

    def chosen(preset: str, *reasons: str) -> Advice:
        return Advice(preset, reasons, tuple(other for other in others if other[0] != preset))

    if more_to_come and peak_known:
        return chosen(
            "infinite",
            "further data sets will follow: a rate that does not depend on the horizon can be "
            "extended by each, without re-warming",
        )
    others.append(
        (
            "infinite",
            "it pays where further data sets follow"
            if not more_to_come
            else "it needs the pretraining's peak rate",
        )
    )
    is_strong = declared.shift == "strong"
    plenty = bool(budget_tokens and new_tokens and new_tokens >= 4 * budget_tokens)
    if is_strong and declared.has_old and plenty:
        return chosen(
            "stability-gap",
            "strong shift and far more new text than budget: several passes over the best of it, "
            "mixed as the pretraining was, beat one pass over a random part",
        )
    others.append(
        (
            "stability-gap",
            "the new text is not known to be four times the budget"
            if is_strong and declared.has_old
            else "it is for a strong shift with old text to mix in",
        )
    )
    if is_strong and peak_known:
        others.append(("reuse", "the pretraining's final rate is low for a strong shift"))
        return chosen(
            "rewarm",
            "strong shift: the rate has to be high again for a while to adapt"
            + ("; a quarter is replayed" if declared.has_old else "; there is no text to replay"),
        )
    if final_known:
        others.append(("rewarm", "re-warming costs old loss at first; for a strong shift it pays"))
        how_far = {"weak": "weak shift", "strong": "peak rate unknown", None: "shift not declared"}
        return chosen(
            "reuse",
            f"the pretraining's final rate is known; {how_far[declared.shift]}: going on from it "
            "changes nothing abruptly",
        )
    if peak_known and declared.final_lr == 0:
        others.append(
            ("reuse", "the pretraining ended at a rate of 0: there is none to go on from")
        )
        return chosen("rewarm", "the pretraining decayed to nothing: only re-warming learns")
    if peak_known:
        others.append(("rewarm", "re-warming costs old loss at first; for a strong shift it pays"))
        return chosen(
            "reuse",
            "the final rate is not known: a tenth of the peak is assumed (`rewarm tune --lr` "
            "measures instead of assuming)",
        )
    others.append(("rewarm", "the pretraining's peak rate is not known"))
    return chosen(
        "reuse",
        "nothing is known of the pretraining's rates: give schedule.peak_lr a number "
        "(`rewarm tune --lr` finds one)",
    )
