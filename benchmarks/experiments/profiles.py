"""Profiles of the two most important cases, kept beside the report: unpriced and prepaid at 64 connections."""

from __future__ import annotations

from benchmarks.cases import OURS, Case
from benchmarks.experiments.finding import Finding, Setting
from benchmarks.profile import sample

TOP = 30


def run(setting: Setting) -> Finding:
    """Sample both and write NAME-profile-KIND.md."""
    document, lines = {}, []
    setting.directory.mkdir(parents=True, exist_ok=True)
    for kind in OURS:
        case = Case(kind, setting.server, agents=len(setting.stack.world.agents))
        profile = sample(setting.stack, setting.caller, case, 2 if setting.quick else 8)
        file = f"{setting.name}-profile-{kind}.md"
        (setting.directory / file).write_text(profile.markdown(TOP), encoding="utf-8")
        document[kind] = {
            "file": file, "objects": dict(profile.objects[:12]), "python": dict(profile.alone[:12]),
        }  # fmt: skip
        shares = ", ".join(f"{name} {share:.0%}" for name, share in profile.objects[:6]) or "perf is not installed"
        lines.append(f"- [{kind}]({file}): {shares}")
    text = "Where the gateway's processor time is, by object (perf); the files have functions.\n\n" + "\n".join(lines)
    return Finding("profiles", "Profiles", document, text)
