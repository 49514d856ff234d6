"""Chat templates asked of the harness: one line that names the option, and no template is run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from engine.nano import NANO
from evals.local_tasks import write_tasks
from pythia_gguf import load, quantize
from pythia_gguf.errors import UsageError
from pythia_gguf.evals.harness import PythiaLM

BOMB = "{% for i in range(10 ** 9) %}{{ messages }}{% endfor %}"


def model_of(folder: Path, template: str | None) -> PythiaLM:
    source = shutil.copytree(NANO, folder / "hf")
    if template is not None:
        (source / "chat_template.jinja").write_text(template)
    (made,) = quantize(source, folder / "out", quants="Q8_0").files
    return PythiaLM(load(made.path))


@pytest.mark.parametrize(
    ("template", "says"), [(BOMB, "templates are programs from elsewhere"), (None, "the model has no chat template")]
)
def test_one_line_that_names_the_option(template: str | None, says: str, tmp_path: Path):
    lm = model_of(tmp_path, template)
    tasks = write_tasks(tmp_path / "tasks")
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    for options in ({}, {"num_fewshot": 1, "fewshot_as_multiturn": True}):
        with pytest.raises(UsageError, match=says) as e:
            simple_evaluate(lm, tasks=["piqa"], task_manager=manager, apply_chat_template=True, **options)
        assert str(e.value).startswith("apply_chat_template cannot be used") and str(e.value).isprintable()
        assert e.value.argument == "apply_chat_template"
    for name in (True, "default"):
        with pytest.raises(UsageError, match=says):
            lm.chat_template(name)
    assert lm.chat_template(False) is None
    assert lm.tokenizer_name == "hf.Q8_0.gguf"
