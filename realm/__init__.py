"""REALM (Wu et al. 2026, arXiv 2605.14867): masked pretraining, distillation and fine-tuning of Mamba-2 decoders."""

from realmbench.registry import Lazy

DECODERS = {
    "realm-student": Lazy(
        "realmbench.realm.decoders:RealmStudent", "causal student distilled from the masked-autoencoding teacher"
    ),
    "realm-student-plus": Lazy(
        "realmbench.realm.plus_decoder:RealmStudentPlus",
        "beyond the paper: a teacher that has learnt the task, and a read-in fitted to every session",
    ),
    "realm-student-unlabelled": Lazy(
        "realmbench.realm.guesses:RealmStudentUnlabelled",
        "the pretrained network of realm-student-plus, adapted to a new session without any label",
    ),
    "realm-student-mixed": Lazy(
        "realmbench.realm.guesses:RealmStudentMixed",
        "the pretrained network of realm-student-plus, adapted to labels mixed with its own guesses",
    ),
    "realm-teacher-plus": Lazy(
        "realmbench.realm.plus_decoder:RealmTeacherPlus",
        "the bidirectional teacher of realm-student-plus, adapted like it: not causal, an upper reference",
    ),
    "realm-student-s": Lazy("realmbench.realm.decoders:RealmStudentSmall", "a smaller student of the same teacher"),
    "realm-student-l": Lazy("realmbench.realm.decoders:RealmStudentLarge", "a larger student of the same teacher"),
    "realm-student-ahead": Lazy(
        "realmbench.realm.ahead:RealmAhead",
        "the student with a delay: it sees 100 ms, or more or less, of the future",
    ),
    "realm-student-plus-ahead": Lazy(
        "realmbench.realm.plus_ahead:RealmStudentPlusAhead", "realm-student-plus with a delay, as long unless set"
    ),
    "realm-bi": Lazy(
        "realmbench.realm.decoders:RealmBidirectional", "bidirectional student: not causal, an upper reference"
    ),
    "realm-teacher": Lazy(
        "realmbench.realm.decoders:RealmTeacher", "bidirectional teacher, fine-tuned with a fresh head: not causal"
    ),
    "realm-pooled": Lazy(
        "realmbench.realm.decoders:RealmPooled", "control: same network, sessions, labels and updates, no teacher"
    ),
    "realm-pooled-steady": Lazy(
        "realmbench.realm.steady_control:RealmPooledSteady",
        "control: the same behind the normaliser that realm-student-plus has",
    ),
    "realm-student-transformer": Lazy(
        "realmbench.realm.decoders:RealmStudentTransformer", "control: same teacher and size, attention backbone"
    ),
    "realm-scratch": Lazy("realmbench.realm.decoders:RealmScratch", "control: same network, held-out session alone"),
}

BENCHES = {
    "ssd": Lazy("realmbench.realm.speed:SsdBench", "the scan against its dual form, transformers' block, long records"),
    "stages": Lazy("realmbench.realm.stage_speed:StagesBench", "time and memory of an update of each published stage"),
}
