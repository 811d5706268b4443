"""Ask: try the champion, or two versions side by side, with files of your own."""

from __future__ import annotations

import base64

import streamlit as st

from dashboard import charts_ask
from dashboard.answering import Job, Upload
from dashboard.choosing import numbers, version_asked
from dashboard.serving import UPLOAD_MB
from dashboard.showing import chart, head, live, nothing
from dashboard.sources.answers import choice, keeper, needed, submit
from dashboard.sources.models import models, usual
from dashboard.sources.versions import standing
from dashboard.visiting import Answer, of_prompt, of_tokens, read
from dashboard.words import lasting, plain, short
from uni_moe.errors import UniMoeError
from uni_moe.registry.read import Version

NOBODY = "nobody"
MOST_TOKENS = 256
LONGEST_QUESTION = 4_000
LOOK_S = 1.0
KINDS = {
    "image": ("Picture", ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"]),
    "video": ("Film", ["mp4", "mov", "m4v", "webm", "mkv", "avi", "mpg", "mpeg"]),
    "audio": ("Sound", ["wav", "flac", "mp3", "ogg", "m4a", "aac"]),
    "speech": ("Speech", ["wav", "flac", "mp3", "ogg", "m4a", "aac"]),
}


def chosen(known: dict[str, Version]) -> dict[str, Version]:
    """Let a person choose whom to ask; a number in the address that nobody has is told."""
    version_asked()
    version_asked("against", (NOBODY,))
    first_of_all = usual()
    assert first_of_all is not None, "there are versions to choose from"
    left, right = st.columns(2)
    first = left.selectbox(  # options as they stand in the address
        "Ask version",
        numbers(),
        index=numbers().index(str(first_of_all.number)),
        key="version",
        bind="query-params",
    )
    second = right.selectbox(
        "and beside it version", [NOBODY, *numbers()], key="against", bind="query-params"
    )
    for place, number in ((left, first), (right, second)):
        place.caption(named(known[number]) if number in known else "one version alone")
    return {number: known[number] for number in dict.fromkeys((first, second)) if number in known}


def named(version: Version) -> str:
    """Return what a version is, in a line."""
    return f"{plain(standing(version))}, {short(version.model)}: {plain(version.reason, 80)}"


def may_ask(versions: dict[str, Version]) -> bool:
    """Say whether models are asked here; tell why not, and how to change that."""
    if choice() == "off":
        nothing(
            "Asking is switched off on this dashboard.",
            "Start it by `uni-moe dashboard --ask on`, or use `uni-moe ask`.",
        )
        return False
    if not all(any(one.model_folder.glob("*.safetensors")) for one in versions.values()):
        nothing(
            "The weights of this version are not on this machine.",
            "`uni-moe pull` brings them from the remote, where there is one.",
        )
        return False
    found = needed([one.model_folder for one in versions.values()])
    if found.is_enough or choice() == "on":
        return True
    free = (found.free or 0) / 1e9
    nothing(
        f"Asking takes about {found.needed / 1e9:.1f} GB of memory ({found.weights / 1e9:.2f} GB "
        f"of weights, and what computing needs beside them), and {free:.1f} GB are free.",
        "Choose a smaller version or nobody beside it, end what else runs, or start the dashboard "
        "by `uni-moe dashboard --ask on`, which asks all the same.",
    )
    return False


def form(versions: dict[str, Version]) -> None:
    """Let a person give a question and files; ask when they say so."""
    with st.form("question", border=True):
        text = st.text_area("Question", key="text", max_chars=LONGEST_QUESTION, height=90)
        places = st.columns(len(KINDS))
        given = {}
        for place, (kind, (label, types)) in zip(places, KINDS.items(), strict=True):
            given[kind] = place.file_uploader(
                label, types, key=f"file-{kind}", max_upload_size=UPLOAD_MB
            )
        tokens = st.number_input(
            "Longest answer, in tokens", 1, MOST_TOKENS, 24, key="tokens", width=220
        )
        wanted = st.form_submit_button("Ask", type="primary", icon=":material/send:")
    if not wanted:
        return
    if not text.strip():
        st.warning("Write a question; files alone ask nothing.")
        return
    uploads = [Upload(kind, one.name, one.getvalue()) for kind, one in given.items() if one]
    before = st.session_state.pop("job", None)
    if before is not None:
        before.stop()
    folders = {f"version {number}": one.model_folder for number, one in versions.items()}
    st.session_state["job"] = submit(text.strip(), folders, uploads, int(tokens))


@live(LOOK_S)
def waiting(job: Job) -> None:
    """Show how far a question is, until it is answered."""
    job.seen()
    if job.over:
        st.rerun()
    ahead = keeper().ahead(job)
    if ahead:
        said = f"{ahead} questions come before this one."
    else:
        said = plain(f"{job.doing[:1].upper()}{job.doing[1:]} …")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f":material/hourglass_top: {said}")
        st.button("Stop", on_click=job.stop, key="stop")


def shown(job: Job) -> None:
    """Show the answers, or why there are none."""
    if job.answers:
        for place, (label, told) in zip(
            st.columns(len(job.answers)), job.answers.items(), strict=True
        ):
            with place:
                one_answer(label, read(told))
    if job.error is not None:
        st.error(plain(job.error.what.partition("\n")[0]), icon=":material/error:")
        st.text(str(job.error).partition("\n")[2])


def one_answer(label: str, answer: Answer) -> None:
    """Show what one model says, and where its tokens went."""
    st.subheader(plain(label[:1].upper() + label[1:]), anchor=False)
    with st.container(border=True):
        st.text(answer.text or "(the model says nothing)")
    st.caption(
        f"{len(answer.tokens)} tokens in {lasting(answer.answering_s)}; "
        + (
            f"loaded in {lasting(answer.loading_s)}"
            if answer.loading_s > 0.1
            else "in memory before"
        )
    )
    what_it_saw(answer)
    if not answer.layers:
        nothing("This model has no experts.", "A model after `assemble` has some.")
        return
    key = "".join(letter for letter in label if letter.isalnum())
    cells, numbers = of_tokens(answer)
    chart(
        charts_ask.token_visits(cells),
        numbers,
        title="The expert that weighs most, for each token and sparse layer",
        look_for="A number is an expert, a darker cell weighs it more. Look for tokens that go "
        "elsewhere than their neighbours. The numbers hold every expert a token visits.",
        key=f"tokens-{key}",
    )
    means, layers = of_prompt(answer)
    chart(
        charts_ask.prompt_visits(means),
        layers,
        title="Where the prompt's positions go, share of visits",
        look_for="A row is a modality. Rows alike: the routers do not tell modalities apart; the "
        "column of a modality's own expert is where its row should be dark.",
        key=f"prompt-{key}",
    )


def what_it_saw(answer: Answer) -> None:
    """Show the media as the model was given them, decoded and made small."""
    for one in answer.shown:
        label = KINDS[one["kind"]][0]
        if "pictures" in one:
            st.caption(f"{label}, as the model is given it")
            pictures = [base64.b64decode(picture) for picture in one["pictures"]]
            count = len(pictures)
            alts = [f"{label}, {place + 1} of {count}" for place in range(count)]
            st.image(list(pictures), alt=alts, width=110 if count > 1 else 220)
        else:
            st.caption(f"{label}: {lasting(one['duration_s'])} were heard")


head("ask")
known = {str(one.number): one for one in reversed(models())}
if not known:
    nothing("No model is registered yet.", "`uni-moe run` trains, judges and registers one.")
    st.stop()
versions = chosen(known)
if may_ask(versions):
    try:
        form(versions)
    except UniMoeError as error:  # the queue is full; the question stands as it was written
        st.warning(plain(f"{error.what} {error.remedy}"))
    job = st.session_state.get("job")
    if job is not None and not job.over:
        waiting(job)
    elif job is not None:
        shown(job)
