"""The command that runs tasks of lm-evaluation-harness."""

from __future__ import annotations

from dataclasses import replace

import click

from cegppo_lab.cli.common import path_option, runtime, shown_path
from cegppo_lab.errors import LabError


@click.command()
@click.argument("policy")
@click.option("--task", "tasks", multiple=True, required=True, metavar="NAME", help="Repeatable.")
@click.option("--tasks-from", metavar="DIR", help="Folder of task YAML files of your own.")
@click.option("--limit", type=click.IntRange(1), help="The first so many problems of each task.")
@click.option(
    "--samples", type=click.IntRange(1), default=1, show_default=True, help="Responses per problem."
)
@click.option("--temperature", type=click.FloatRange(0), help="0 is greedy; default: the task's.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="Default: the task's.")
@click.option("--max-tokens", type=click.IntRange(1), help="Of a response; default: the task's.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--chat-template/--no-chat-template", default=None, help="Default: the policy's.")
@click.option(
    "--run-generated-code",
    is_flag=True,
    help="Execute what the policy writes (humaneval): no sandbox, use a container.",
)
@path_option("store")
def harness(
    policy: str,
    device: str,
    chat_template: bool | None,
    store: str | None,
    **options: object,
) -> None:
    """Run tasks of lm-evaluation-harness on a policy: humaneval, ifeval, gsm8k, ...

    POLICY is what the evaluate command takes, but one. Any lm-eval task of generated text is
    served; what needs log-likelihoods is not. lm-eval 0.4.13 has no ifbench and no livecodebench,
    which the paper reports; IFEval is another benchmark than IFBench. Data sets come from the hub.
    A response is sampled to its budget and then cut at the task's stop sequence.

    \b
    python -m cegppo_lab harness smollm2-135m --task ifeval --limit 20
    python -m cegppo_lab harness FOLDER --task humaneval --run-generated-code \\
        --samples 4 --temperature 0.6 --top-p 0.95        the paper's avg@4, as pass@1 of 4
    """
    from cegppo_lab.evaluate.policies import find_policies
    from cegppo_lab.harness import HarnessSettings, run_harness, table
    from cegppo_lab.store import RunStore

    settings = HarnessSettings(**options)
    kept = RunStore(runtime(store=store).store)
    spec, *others = find_policies([policy], kept, lambda line: click.echo(f"note: {line}"))
    if others:
        raise LabError(f"{policy} is {len(others) + 1} policies; name one, e.g. a trial's id")
    if chat_template is not None:
        spec = replace(spec, chat_template=chat_template)
    if settings.run_generated_code:
        click.echo("warning: code that the policy writes is executed on this machine", err=True)
    rows, path = run_harness(spec, settings, kept, device)
    click.echo(table(rows))
    click.echo(f"results: {shown_path(path)}")
