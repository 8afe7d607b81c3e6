"""The loss microscope: what algorithms do to a token's gradient, and to entropy without reward."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cegppo_lab.cli.common import shown_path
from cegppo_lab.errors import LabError

if TYPE_CHECKING:
    from analysis.load import Arm
    from cegppo_lab.algorithms import Algorithm
    from cegppo_lab.explain.dynamics import Drift, Settings


@click.command()
@click.argument("words", nargs=-1, metavar="[NAME]... [NAME.KEY=VALUE]...")
@click.option("--sweep", metavar="NAME", help="The algorithms of a sweep's arms instead.")
@click.option("--dynamics", is_flag=True, help="Preview the drift of entropy, without reward.")
@click.option("--step", default=0, show_default=True, help="Of scheduled coefficients, from 0.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Draw it, to PNG or PDF."
)
def explain(
    words: tuple[str, ...], sweep: str | None, dynamics: bool, step: int, out: Path | None
) -> None:
    """Show the gradient weight F of algorithms, side by side; no run is needed.

    Every algorithm here has the policy gradient F * A * grad log pi; F is shown against the
    importance ratio for either sign of the advantage A. With --dynamics a tabular policy is trained
    on rewards without signal: what is left is the algorithm's own drift of entropy.

    \b
    python -m cegppo_lab explain
    python -m cegppo_lab explain cegppo dapo cispo --out weights.png cegppo.beta1=0.5
    python -m cegppo_lab explain --sweep beta_grid --dynamics --out drift.png
    python -m cegppo_lab explain grpo dapo --dynamics dynamics.steps=100 dynamics.seeds=4
    """
    from cegppo_lab.explain.choose import arms, presets, split_words

    names, values = split_words(words)
    of_preview = {key: values.pop(key) for key in list(values) if key.startswith("dynamics.")}
    if of_preview and not dynamics:
        raise LabError(f"{next(iter(of_preview))}: it is of the preview; say --dynamics as well")
    if sweep and names:
        raise LabError(f"{names[0]!r} beside --sweep {sweep}: name algorithms or a sweep, not both")
    if out is not None and out.suffix not in (".png", ".pdf"):
        raise LabError(f"--out {out}: must end in .png or .pdf")
    chosen = arms(sweep, values) if sweep else presets(names, values)
    if dynamics:
        _tell_drift(chosen, _settings(of_preview), out)
    else:
        _tell_weights(chosen, step, out)


def _settings(values: Mapping[str, Any]) -> Settings:
    from cegppo_lab.explain.dynamics import Settings
    from cegppo_lab.validation import validated

    own = {key.partition(".")[2]: value for key, value in values.items()}
    return validated(Settings, own, "dynamics")


def _tell_weights(chosen: dict[str, Algorithm], step: int, out: Path | None) -> None:
    from cegppo_lab.explain.weights import PROBABILITY, RATIOS, curves, grid

    for cls in dict.fromkeys(type(algorithm) for algorithm in chosen.values()):
        click.echo(f"{cls.title} ({cls.name}) maximises {cls.equation}   [{cls.source}]")
        click.echo("  " + inspect.cleandoc(cls.__doc__ or "").replace("\n", "\n  ") + "\n")
    found = curves(chosen, list(RATIOS), step)
    for side in ("positive", "negative"):
        click.echo(f"F against the ratio, {side} advantage (token of probability {PROBABILITY:g})")
        rows = {label: [f"{v:.3g}" for v in getattr(c, side)] for label, c in found.items()}
        _print_table(["", *(f"{ratio:g}" for ratio in RATIOS)], rows)
    if out is not None:
        from analysis.figures.explain import weights_figure

        _save(weights_figure(curves(chosen, grid(), step), _looked(chosen)), out)


def _tell_drift(chosen: dict[str, Algorithm], settings: Settings, out: Path | None) -> None:
    import torch

    from analysis.stats import mean_estimate
    from cegppo_lab.explain.dynamics import preview

    torch.set_num_threads(1)
    drift = preview(chosen, settings)
    click.echo(
        f"entropy of a tabular policy after {settings.steps} rollout batches of rewards without "
        f"signal, from {drift.entropy[0, 0, 0]:.3f}; mean over {settings.seeds} seeds [95 %], "
        "lowest first"
    )
    order = drift.entropy[:, :, -1].mean(1).argsort().tolist()
    _print_table(
        ["", "entropy", "change", "Eq. 7", "inside", "NA outside", "PA outside", "outside %"],
        {drift.labels[i]: _row(drift, i, mean_estimate) for i in order},
    )
    click.echo(
        "change: measured. Eq. 7: predicted to first order, as the sum of the tokens inside the "
        "clip interval\n(with an entropy bonus, if any) and those outside it, by the sign of their "
        "advantage."
    )
    if out is not None:
        from analysis.figures.explain import drift_figure

        entropies = dict(zip(drift.labels, drift.entropy.numpy(), strict=True))
        _save(drift_figure(entropies, _looked(chosen)), out)


def _row(drift: Drift, number: int, mean_estimate: Any) -> list[str]:
    entropies = drift.entropy[number].double()
    end = mean_estimate(entropies[:, -1].numpy())
    by_class = drift.predicted[number].double().sum(1).mean(0)
    positive, negative = by_class[:2].sum(0), by_class[2:].sum(0)
    changes = (
        (entropies[:, -1] - entropies[:, 0]).mean(),
        by_class.sum(),
        positive[0] + negative[0],
        negative[1],
        positive[1],
    )
    return [
        f"{end.value:.2f} [{end.low:.2f}, {end.high:.2f}]",
        *(f"{change:+.2f}" for change in changes),
        f"{drift.clipped[number].mean() * 100:.2f}",
    ]


def _print_table(titles: list[str], rows: Mapping[str, list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for number, title in enumerate(titles):
        table.add_column(title, justify="right" if number else "left", no_wrap=True)
    for label, cells in rows.items():
        table.add_row(label, *cells)
    console = Console()
    if not console.is_terminal:  # a pipe has no width: nothing is cut there
        console = Console(width=200)
    console.print(table)


def _looked(chosen: Mapping[str, Algorithm]) -> dict[str, Arm]:
    """The algorithms as arms, which is what looks are given to."""
    from analysis.load import Arm

    return {
        label: Arm(label, algorithm.name, settings=algorithm.model_dump(mode="json"))
        for label, algorithm in chosen.items()
    }


def _save(figure: Any, out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=160)
    except OSError as error:
        raise LabError(f"cannot write to {out}: {error.strerror}") from None
    click.echo(f"figure: {shown_path(out)}")
