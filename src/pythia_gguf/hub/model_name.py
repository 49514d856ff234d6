"""NAME[@STEP][:QUANT]: how a model of the Hub is named on a command line.

Knows no network: whether such a repository exists, it cannot say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pythia_gguf.errors import UsageError, one_line
from pythia_gguf.hub.suite import ORGANIZATION, SuiteModel, find_model

MAIN = "main"
_NAME = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?)(?:@(?P<step>[^@:]+))?(?::(?P<quant>[\w]+))?")
# As git names branches and commits, without what would lead out of a folder.
_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9][\w./-]{0,199}")
_STEP = re.compile(r"(?:step)?(\d{1,9})")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelName:
    """What a name says.

    repo_id   "EleutherAI/pythia-70m-deduped"
    revision  branch or commit, "main" when none is given
    quant     of the menu, as given, or None
    model     where the repository is one of the suite
    notice    what the user should know, such as a newer name
    """

    repo_id: str
    revision: str = MAIN
    quant: str | None = None
    model: SuiteModel | None = None
    notice: str | None = None

    def __str__(self) -> str:
        """The name in full, as it can be given again."""
        step = "" if self.revision == MAIN else f"@{self.revision}"
        return f"{self.repo_id}{step}{f':{self.quant}' if self.quant else ''}"


def parse_model_name(text: str) -> ModelName:
    """Take a name apart; raises UsageError for what is no name, no model of the suite, or none of its steps.

    A name without a slash is one of the suite; a step is "step3000", "3000", any branch or a commit.
    """
    match = _NAME.fullmatch(text)
    if not match:
        raise UsageError(f"{one_line(text, 100)!r} is no file, no folder and no NAME[@STEP][:QUANT]")
    model = notice = None
    repo_id = match["name"]
    if "/" not in repo_id or repo_id.lower().startswith(f"{ORGANIZATION.lower()}/pythia-"):
        try:
            model, notice = find_model(repo_id)
            repo_id = model.repo_id
        except UsageError:
            if "/" not in repo_id:  # others of the organization, such as seeds, are not in the suite's list
                raise
    revision = _revision(match["step"], model)
    return ModelName(repo_id=repo_id, revision=revision, quant=match["quant"], model=model, notice=notice)


def _revision(step: str | None, model: SuiteModel | None) -> str:
    if step is None:
        return MAIN
    if number := _STEP.fullmatch(step):
        n = int(number[1])
        if model is not None:
            model.step(n)
        return f"step{n}"
    if not _REVISION.fullmatch(step):
        raise UsageError(f"{one_line(step, 100)!r} is no step and no branch")
    return step
