"""Parses NAME[@STEP][:QUANT], the name of a model of the Hub, or the address of its page.

Instead of a quant, a GGUF file of the repository may follow: OWNER/NAME[@STEP]:FILE.gguf. Nothing here asks the
network, so such a repository need not exist.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pythia_gguf.errors import UsageError, one_line
from pythia_gguf.hub.page import is_page, name_on_page
from pythia_gguf.hub.suite import MODELS, ORGANIZATION, SuiteModel, find_model

MAIN = "main"
_NAME = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?)(?:@(?P<step>[^@:]+))?"
    r"(?::(?:(?P<file>(?!.*(?:^|/)\.\.?/)[^:/\\][^:\\]*\.(?i:gguf))|(?P<quant>[\w-]+)))?"
)
# Names that git allows for branches and commits, without those that would lead out of a folder.
_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9][\w./-]{0,199}")
_STEP = re.compile(r"(?:step)?(\d{1,9})")
# Spellings of a step of the suite.
_SPELLED_STEP = re.compile(r"(?:(?:global[-_ ]?)?step|iter(?:ation)?|checkpoint)?[-_ ]?(\d{1,9})", re.IGNORECASE)
# Names in which a dash or a slash stands where "@" or ":" belongs.
_STUCK = re.compile(
    r"(?P<name>.+?)(?:[-_/.:](?P<step>step[-_]?\d+)|[-_/.](?P<quant>I?Q\d\w*|B?F16|F32))", re.IGNORECASE
)
_SWAPPED = re.compile(r"(?P<name>[^@:]+):(?P<quant>[^@:]+)@(?P<step>[^@:]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelName:
    """The parts of a name.

    repo_id   "EleutherAI/pythia-70m-deduped"
    revision  branch or commit, "main" when none is given
    quant     as given, or None
    file      path of a GGUF in the repository, or None
    model     the model of the suite, if the repository is one's
    notice    a note for the user, such as a newer name
    """

    repo_id: str
    revision: str = MAIN
    quant: str | None = None
    file: str | None = None
    model: SuiteModel | None = None
    notice: str | None = None

    def __str__(self) -> str:
        """The name in full, as it can be given again."""
        step = "" if self.revision == MAIN else f"@{self.revision}"
        return f"{self.repo_id}{step}{f':{self.file or self.quant}' if self.file or self.quant else ''}"

    @property
    def base_name(self) -> str:
        """NAME of the files that are made from it: "pythia-70m-deduped-step3000"."""
        name = self.repo_id.split("/")[-1]
        return name if self.revision == MAIN else f"{name}-{self.revision.replace('/', '-')}"


def parse_model_name(text: str, endpoint: str | None = None) -> ModelName:
    """Take a name apart; raises UsageError for a text that is no name, no model of the suite, or none of its steps.

    A name without a slash is a model of the suite; a step is "step3000", "3000", any branch or a commit. The address of
    a model's page on the Hub counts as its name.

    endpoint  address of the hub; None: huggingface_hub's
    """
    text = text.strip()
    if is_page(text):
        text = name_on_page(text, endpoint or _endpoint())
    match = _NAME.fullmatch(text)
    if not match:
        raise UsageError(f"{one_line(text, 100)!r} is no file, no folder and no NAME[@STEP][:QUANT]{_meant(text)}")
    model = notice = None
    repo_id = match["name"]
    if "/" not in repo_id or repo_id.lower().startswith(f"{ORGANIZATION.lower()}/pythia-"):
        try:
            model, notice = find_model(repo_id)
            repo_id = model.repo_id
        except UsageError as e:
            if meant := _meant(text):
                raise UsageError(f"no model {one_line(repo_id, 100)!r} in the Pythia suite{meant}") from e
            if "/" not in repo_id:  # others of the organization, such as seeds, are not in the suite's list
                raise
    elif repo_id.split("/")[0].lower() in MODELS:
        raise UsageError(f"{one_line(repo_id, 100)!r}: no owner of models is called so{_meant(text)}")
    if match["quant"] and _STEP.fullmatch(match["quant"].lower()):
        raise UsageError(f"{match['quant']!r} is no quant{_meant(text)}")
    revision = _revision(match["step"], model)
    quant, file = match["quant"], match["file"]
    return ModelName(repo_id=repo_id, revision=revision, quant=quant, file=file, model=model, notice=notice)


def step_number(text: str) -> int | None:
    """N of a step in any usual spelling: "step3000", "3000", "step_3000", "checkpoint-3000"; None for other texts."""
    match = _SPELLED_STEP.fullmatch(text)
    return int(match[1]) if match else None


def names_a_file(text: str) -> bool:
    """Whether a text can name a GGUF file of a repository, rather than only a path."""
    match = _NAME.fullmatch(text)
    return match is not None and match["file"] is not None and "/" in match["name"]


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT.rstrip("/")


def _meant(text: str) -> str:
    """A hint for a name whose step or quant stands in the wrong place."""
    match = _SWAPPED.fullmatch(text) or _STUCK.fullmatch(text) if len(text) < 300 else None
    if match is None:
        return ""
    step = re.sub("[-_]", "", match["step"].lower()) if match["step"] else ""
    meant = match["name"] + (f"@{step}" if step else "") + (f":{match['quant']}" if match["quant"] else "")
    return f". Did you mean {one_line(meant, 100)}?"


def _revision(step: str | None, model: SuiteModel | None) -> str:
    if step is None:
        return MAIN
    if model is not None and (n := step_number(step)) is not None:
        return f"step{model.step(n).n}"
    if number := _STEP.fullmatch(step):  # another spelling may be a branch of somebody
        return f"step{int(number[1])}"
    if not _REVISION.fullmatch(step):
        raise UsageError(f"{one_line(step, 100)!r} is no step and no branch")
    return step
