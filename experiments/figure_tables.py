"""A figure's report: Markdown for people, the same as JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from armt_jax.evaluation.tables import ABSENT, to_markdown
from experiments.figure_claims import CLAIMS
from experiments.figure_data import FigureData

TITLES = {
    "fig2a": "Figure 2a: pairs stored (Remember)",
    "fig2b": "Figure 2b: exact match after many updates (Rewrite)",
    "fig4a": "Figure 4a: with and without gamma (Rewrite)",
    "fig4b": "Figure 4b: memory in every layer (Remember)",
    "ablations": "Ablations of ARMT (Rewrite)",
}


def markdown(data: FigureData) -> str:
    """Claims, exact match (and stored pairs), every seed, models, rates, what is missing."""
    plan = data.plan
    parts = [f"# {TITLES[plan.figure]}\n", _about(data)]
    if CLAIMS[plan.figure]:
        parts += ["## The paper's claims\n", _claims(data)]
    counted = "pairs" if plan.variant == "remember" else "updates"
    parts += [f"## Exact match, %, by {counted}: mean over seeds [95 % interval]\n", _match(data)]
    if plan.variant == "remember":
        parts += ["## Estimated stored pairs (Appendix B) [95 % interval]\n", _capacity(data)]
    parts += ["## Every seed: exact match, %\n", _seeds(data), "## Models\n", _models(data)]
    if plan.tuning_lengths:
        at = " and ".join(map(str, plan.tuning_lengths))
        heading = f"## Learning rates: exact match, %, at {at} {counted} of a short training\n"
        parts += [heading, _rates(data)]
    parts += ["## Missing\n", _missing(data)]
    return "\n".join(parts)


def as_json(data: FigureData) -> dict[str, Any]:
    """What ``markdown`` shows, as numbers."""
    claims = [(claim.text, claim.decide(data)) for claim in CLAIMS[data.plan.figure]]
    return {
        "figure": data.plan.figure,
        "plan": dataclasses.asdict(data.plan),
        "claims": [{"paper": text, **verdict._asdict()} for text, verdict in claims],
        "lines": [_line(data, model) for model in data.models],
        "runs": [
            {**dataclasses.asdict(run.about), "rows": [dataclasses.asdict(row) for row in run.rows]}
            for run in data.runs.values()
        ],
        "rates": [
            {"model": model, "rate": rate, "exact_match": _score(data, model, rate)}
            for model, rate in data.tuning
        ],
        "missing": list(data.missing),
        "mixed_versions": list(data.mixed),
    }


def _line(data: FigureData, model: str) -> dict[str, Any]:
    points = []
    for length in data.plan.lengths:
        match, capacity = data.match(model, length), data.capacity(model, length)
        if match is None or capacity is None:
            continue
        point = {"length": length, "exact_match": match._asdict()}
        if data.plan.variant == "remember":
            point["capacity"] = capacity._asdict()
        points.append(point)
    return {"model": model, "points": points}


def _about(data: FigureData) -> str:
    commits = sorted({run.about.commit for run in data.runs.values()})
    versions = sorted({(run.about.version, run.about.code) for run in data.runs.values()})
    code = "; ".join(f"version {version}, code {code}" for version, code in versions)
    mixed = " **Runs of several versions of the code are mixed here.**" if data.mixed else ""
    wanted = len(data.plan.models) * len(data.plan.seeds)
    there = f"Trained to {data.plan.trained_pairs}; {len(data.runs)} of {wanted} runs are there"
    if data.runs:
        there += f" ({code}; commits {', '.join(commits)})"
    return f"{there}.{mixed} The same samples for every model of a seed.\n"


def _claims(data: FigureData) -> str:
    body = []
    for claim in CLAIMS[data.plan.figure]:
        verdict = claim.decide(data)
        body.append([claim.text, verdict.outcome, verdict.numbers])
    return to_markdown([("the paper", False), ("here", False), ("numbers", False)], body)


def _match(data: FigureData) -> str:
    def text(model: str, length: int) -> str:
        match = data.match(model, length)
        if match is None:
            return ABSENT
        mean, low, high = (100 * value for value in match[:3])
        return f"{mean:.1f} [{low:.1f}, {high:.1f}]"

    return _by_length(data, text)


def _capacity(data: FigureData) -> str:
    def text(model: str, length: int) -> str:
        capacity = data.capacity(model, length)
        if capacity is None:
            return ABSENT
        return f"{capacity.mean:.1f} [{capacity.low:.1f}, {capacity.high:.1f}]"

    return _by_length(data, text)


def _by_length(data: FigureData, text: Any) -> str:
    columns = [("model", False), ("seeds", True)]
    columns += [(f"{length:,}", True) for length in data.plan.lengths]
    body = [
        [model, str(len(data.of(model))), *(text(model, length) for length in data.plan.lengths)]
        for model in data.models
    ]
    return to_markdown(columns, body)


def _seeds(data: FigureData) -> str:
    columns = [("model", False), ("seed", True), ("steps", True), ("rate", False)]
    columns += [(f"{length:,}", True) for length in data.plan.lengths]
    body = []
    for model in data.models:
        for run in data.of(model):
            found = [run.row(length) for length in data.plan.lengths]
            values = [ABSENT if row is None else f"{100 * row.exact_match:.1f}" for row in found]
            about = run.about
            body.append([model, str(about.seed), f"{about.step:,}", about.rate, *values])
    return to_markdown(columns, body)


def _models(data: FigureData) -> str:
    columns = [("model", False), ("family", False), ("parameters", True), ("state, floats", True)]
    columns += [("FLOPs per token", True), ("training, s", True)]
    body = []
    for model in data.models:
        runs = [run.about for run in data.of(model)]
        one, seconds = runs[0], sum(run.train_seconds for run in runs) / len(runs)
        body.append(
            [
                model,
                one.family,
                f"{one.num_params:,}",
                f"{one.state_floats:,}",
                f"{one.flops_per_token:,.0f}",
                f"{seconds:,.0f}",
            ]
        )
    return to_markdown(columns, body)


def _score(data: FigureData, model: str, rate: str) -> float | None:
    """What decided between the rates: see ``sweep_runner.best_rate``."""
    run = data.tuning.get((model, rate))
    if run is None:
        return None
    rows = [row for row in run.rows if row.num_pairs in data.plan.tuning_lengths]
    return sum(row.exact_match for row in rows) / len(rows) if rows else None


def _rates(data: FigureData) -> str:
    columns = [
        ("model", False),
        *((rate, True) for rate in data.plan.rates),
        ("trained with", False),
    ]
    body = []
    for model in data.plan.models:
        scores = [_score(data, model, rate) for rate in data.plan.rates]
        used = sorted({run.about.rate for run in data.of(model)})
        shown = [ABSENT if score is None else f"{100 * score:.1f}" for score in scores]
        body.append([model, *shown, ", ".join(used) or ABSENT])
    return to_markdown(columns, body)


def _missing(data: FigureData) -> str:
    if not data.missing:
        return "Nothing.\n"
    return "".join(f"- {name}\n" for name in data.missing)
