"""Options of REALM's decoders: those that do not apply, and those that change nothing, are refused."""

from __future__ import annotations

from typing import Any

import pytest

from realmbench.errors import OptionError
from realmbench.realm.decoders import (
    RealmBidirectional,
    RealmPooled,
    RealmScratch,
    RealmStudent,
    RealmTeacher,
)
from realmbench.realm.guesses import RealmStudentUnlabelled
from realmbench.realm.plus_decoder import RealmStudentPlus, RealmTeacherPlus


def test_options_that_do_not_apply_are_refused() -> None:
    with pytest.raises(OptionError, match="unknown option"):
        RealmPooled("tiny", {"distillation.alignment": 1})
    with pytest.raises(OptionError, match="unknown option"):
        RealmScratch("tiny", {"freeze_tokenizer": True})
    with pytest.raises(OptionError, match="unknown option"):
        RealmTeacher("tiny", {}, {"student.updates": 1})


def test_head_width_must_divide() -> None:
    with pytest.raises(OptionError, match=r"headdim=24 must divide d_model \* expand = 64"):
        RealmScratch("tiny", {"headdim": 24})


def test_options_of_fine_tuning_do_not_apply_to_the_read_out() -> None:
    with pytest.raises(OptionError, match=r"train\.finetune\.updates: decoder\.adaptation=ridge trains no network"):
        RealmStudent("tiny", {"adaptation": "ridge"}, {"finetune.updates": 5})
    with pytest.raises(OptionError, match=r"decoder\.freeze_tokenizer"):
        RealmTeacher("tiny", {"adaptation": "ridge", "freeze_tokenizer": True})


@pytest.mark.parametrize(
    ("model", "options", "stages", "named"),
    [
        (RealmTeacher, {"energy_s": 1.0}, {}, "decoder.energy_s: a network that looks both ways"),
        (RealmStudent, {"distillation.alignment": 0, "distillation.kind": "cka"}, {}, "distillation.kind: .*=0 aligns"),
        (RealmStudent, {"teacher": "random"}, {"teacher.updates": 5}, "train.teacher.updates: .*random is not trained"),
        (RealmStudent, {"teacher": "random", "drop_path": 0.1, "teacher_layers": 2}, {}, "drop_path: .*not trained"),
        (RealmStudent, {"drop_path": 0.1}, {}, "decoder.drop_path: a teacher's only block"),
        (RealmTeacher, {"drop_path": 0.1}, {}, "decoder.drop_path: a teacher's only block"),
        (RealmStudent, {"drop_path": 0.1, "teacher_layers": 2}, {"teacher.updates": 0}, "drop_path: .*does not train"),
        (RealmStudent, {"masking.share": 0.5}, {"teacher.updates": 0}, "masking.share: .*leaves masked"),
        (RealmTeacher, {"masking.share": 0.5}, {"teacher.updates": 0}, "masking.share: .*leaves masked"),
        (RealmTeacher, {}, {"teacher.warm_up_from": 0.3, "teacher.warm_up_share": 0}, "warm_up_from: .*has no warm-up"),
        (RealmTeacher, {}, {"teacher.updates": 0, "teacher.window_s": 2}, "teacher.window_s: .*=0 trains nothing"),
        (RealmTeacher, {"adaptation": "ridge", "dropout": 0.1}, {"teacher.updates": 0}, "dropout: nothing is trained"),
        (RealmStudent, {"distillation.kind": "cka"}, {"student.updates": 0}, "distillation.kind: .*=0 distils nothing"),
        (RealmPooled, {}, {"student.updates": 0, "student.patience": 9}, "student.patience: .*=0 trains nothing"),
        (RealmScratch, {}, {"updates": 0, "patience": 9}, "train.patience: train.updates=0 trains nothing"),
        (RealmScratch, {"dropout": 0.1}, {"updates": 0}, "decoder.dropout: nothing is trained"),
        (
            RealmPooled,
            {"precision": "bfloat16", "adaptation": "ridge"},
            {"student.updates": 0},
            "decoder.precision: nothing is trained",
        ),
        (RealmPooled, {"frozen_layers": 1}, {"finetune.updates": 0}, "decoder.frozen_layers: .*=0 trains nothing"),
        (RealmStudent, {"distillation.alignment": 2}, {"student.updates": 0}, "alignment: .*=0 distils nothing"),
        (
            RealmStudent,
            {"distillation.copy_tokenizer": False, "masking.share": 0.5},
            {"student.updates": 0},
            "masking.share: nothing is aligned",
        ),
        (RealmPooled, {"sessions": 2}, {"student.updates": 0}, "decoder.sessions: nothing is trained on other"),
        (RealmStudent, {"select_on": "held-out"}, {"student.updates": 0}, "select_on: .*=0 distils nothing"),
        (RealmStudentPlus, {"read_in.few_s": 9}, {"student.updates": 0}, "few_s: no network learns the task"),
        (
            RealmStudentPlus,
            {"hand_down.outputs": 0, "drop_path": 0.1, "layers": 2},
            {"teacher.updates": 0, "task.updates": 0},
            "drop_path: the teacher is not trained",
        ),
        (RealmStudentPlus, {"hand_down.alignment": 2}, {"student.updates": 0}, "alignment: .*=0 hands nothing down"),
        (RealmStudentPlus, {}, {"student.updates": 0, "task.updates": 5}, "task.updates: .*leave the teacher out"),
        (RealmStudentPlus, {"freeze_tokenizer": True}, {"finetune.updates": 0}, "freeze_tokenizer: .*trains nothing"),
        (RealmStudentUnlabelled, {"dropout": 0.1}, {"student.updates": 0}, "decoder.dropout: nothing is trained"),
        (
            RealmStudent,
            {"backbone": "gru", "memory_s": 2.0, "distillation.alignment": 0, "distillation.copy_tokenizer": False},
            {},
            "decoder.memory_s: backbone=gru has no states",
        ),
    ],
)
def test_options_that_change_nothing_are_refused(model: Any, options: Any, stages: Any, named: str) -> None:
    with pytest.raises(OptionError, match=named):
        model("tiny", options, stages)


def test_options_that_change_the_teacher_alone_are_taken() -> None:
    RealmBidirectional("tiny", {"teacher": "causal", "energy_s": 1.0})
    RealmStudent("tiny", {"backbone": "gru", "memory_s": 2.0})
    RealmStudent("tiny", {"drop_path": 0.1, "teacher_layers": 2})
    RealmTeacher("small", {"drop_path": 0.1}, {"teacher.updates": 0})  # it is fine-tuned with it
    RealmTeacherPlus("small", {"drop_path": 0.1}, {"teacher.updates": 0, "task.updates": 0})
    RealmStudent("tiny", {"sessions": 2}, {"student.updates": 0})  # so many are the teacher's
