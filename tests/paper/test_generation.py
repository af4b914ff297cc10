"""Sampled texts: their distribution, and that neither a kill nor a lack of memory changes them; with tiny models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from egtmetrics.paper.generation import GeneratedTexts, Sampling, _reserve, generate_texts
from egtmetrics.paper.prompts import messages
from egtmetrics.training.language import prompt_states
from egtmetrics.training.prompts import prompt_tokens
from tests.training import _tiny

TOKENIZER = _tiny.tokenizer()
ATTRIBUTES = [None, "female", None, "male", "female", None, None, "female", None, None]


def build(seed: int = 0) -> Any:
    return _tiny.llama(len(TOKENIZER), seed=seed, spread=0.25)


def generate(path: Path, model: Any = None, **options: Any) -> GeneratedTexts:
    options = {"attributes": ATTRIBUTES, "sampling": Sampling(max_new_tokens=12), "batch_size": 3, **options}
    model = build() if model is None else model
    return generate_texts(model, TOKENIZER, options.pop("attributes"), path=path, **options)


def likely(tokens: list[int], ends: float = 0.0) -> Any:
    """A model that answers with these tokens, each as likely, whatever comes before; the end at the rate ``ends``."""
    model = build()
    head = torch.full((len(TOKENIZER),), -1e9)
    head[tokens] = np.log((1.0 - ends) / len(tokens))
    if ends:
        head[TOKENIZER.eos_token_id] = np.log(ends)
    model.lm_head.register_forward_hook(lambda _m, _i, output: head.expand_as(output))
    return model


@pytest.mark.parametrize("make", [_tiny.gpt2, _tiny.llama, _tiny.gemma])
def test_cold_answers_are_those_of_a_greedy_search(make: Any, tmp_path: Path) -> None:
    """Against transformers' own generate: keys and values, positions, and rows that leave the batch."""
    model = make(len(TOKENIZER), seed=4)
    # Ends early where they would rarely: rows of a batch have to leave it at different times.
    attributes = [None, "female", "male", "old", "tall", "kind"] * 2
    made = generate(
        tmp_path / "t.jsonl", model, attributes=attributes, sampling=Sampling(temperature=1e-6, max_new_tokens=20)
    )
    for attribute, text, n_tokens in zip(attributes, made.texts, made.n_tokens, strict=True):
        prompt = torch.tensor([prompt_tokens(TOKENIZER, messages(attribute))])
        expected = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=20, pad_token_id=0
        )[0, prompt.shape[1] :].tolist()
        assert n_tokens == len(expected)
        assert text == TOKENIZER.decode(expected, skip_special_tokens=True).strip().removeprefix("Biography:").strip()


@pytest.mark.parametrize("make", [_tiny.gpt2, _tiny.llama, _tiny.gemma])
def test_sampled_answers_follow_the_probabilities_of_their_prefixes(make: Any, tmp_path: Path) -> None:
    """Replay: token t is where the text's t-th uniform number falls in the distribution given the tokens before."""
    model = make(len(TOKENIZER), seed=1)
    model.generation_config.eos_token_id = [2, *range(10, 120)]  # so that rows leave at different times
    seen: list[list[int]] = []
    decode = TOKENIZER.decode
    tokenizer = _tiny.tokenizer()
    tokenizer.decode = lambda tokens, **options: (seen.append(list(tokens)), decode(tokens, **options))[1]
    sampling = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=15)
    generate_texts(model, tokenizer, [None] * 8, path=tmp_path / "t", sampling=sampling, batch_size=8, random_state=3)
    assert len({len(tokens) for tokens in seen}) > 2
    prompt = prompt_tokens(TOKENIZER, messages())
    for row, answer in enumerate(seen):
        uniforms = np.random.default_rng([3, row]).random(15)
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].double() / 0.7
        for p, u, token in zip(logits.softmax(-1).detach().numpy(), uniforms[: len(answer)], answer, strict=True):
            order = np.argsort(-p, kind="stable")
            nucleus = order[: 1 + int(np.searchsorted(p[order].cumsum(), 0.9))]
            kept = np.where(np.isin(np.arange(len(p)), nucleus), p, 0.0)
            cumulated = kept.cumsum() / kept.sum()
            assert kept[token] > 0
            assert cumulated[token - 1] - 1e-4 < u < cumulated[token] + 1e-4


def test_frequencies_are_the_probabilities(tmp_path: Path) -> None:
    """Chi-square with 2 degrees of freedom at a fixed seed; a right sampler would fail one seed in 1000."""
    tokens = TOKENIZER.convert_tokens_to_ids(["a", "b", "c"])
    model = likely(tokens)
    text = "".join(generate(tmp_path / "t", model, attributes=[None] * 100, batch_size=50).texts)
    counts = np.array([text.count(letter) for letter in "abc"])
    assert counts.sum() == 1200
    assert ((counts - 400) ** 2 / 400).sum() < 13.8


def test_an_end_ends_and_what_has_not_ended_is_counted(tmp_path: Path) -> None:
    tokens = TOKENIZER.encode("a", add_special_tokens=False)
    made = generate(tmp_path / "t.jsonl", likely(tokens, ends=0.3), attributes=[None] * 60, batch_size=20)
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(60))
    for row in rows:
        assert row["text"] == "a" * (row["n_tokens"] - row["finished"])
        assert row["finished"] == (row["n_tokens"] < 12) or row["n_tokens"] == 12
        assert not row["heading"]
    assert [row["text"] for row in rows] == made.texts
    assert [row["n_tokens"] for row in rows] == made.n_tokens
    assert made.n_empty == sum(row["text"] == "" for row in rows) > 0
    assert made.n_unfinished == sum(not row["finished"] for row in rows) > 0
    assert (made.n_without_heading, made.n_resumed) == (60, 0)


def test_the_heading_is_taken_off_and_counted(tmp_path: Path) -> None:
    answer = TOKENIZER.encode("Biography:\nEnglish poet<|end|>", add_special_tokens=False)
    model, place = build(), iter(range(10**6))

    def recite(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(torch.tensor(answer[next(place)]), len(TOKENIZER)).expand_as(output) * 1e4

    model.lm_head.register_forward_hook(recite)
    made = generate(tmp_path / "t", model, attributes=[None] * 2, sampling=Sampling())
    assert made.texts == ["English poet"] * 2
    assert (made.n_without_heading, made.n_empty, made.n_unfinished) == (0, 0, 0)


def test_an_interrupted_generation_leaves_the_same_file(tmp_path: Path) -> None:
    """Cut off anywhere: between batches, between lines, within one; and before the first."""
    whole = generate(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    settings = (tmp_path / "whole.settings.json").read_bytes()
    lines = content.splitlines(keepends=True)
    assert len(lines) == len(ATTRIBUTES)
    ends = [0, *np.cumsum([len(line) for line in lines])]
    path = tmp_path / "part"
    for kept in [None, *ends, 5, ends[2] + 7, ends[4] - 1]:
        (tmp_path / "part.settings.json").write_bytes(settings)
        path.unlink(missing_ok=True)
        if kept is not None:
            path.write_bytes(content[:kept])
        made = generate(path)
        assert path.read_bytes() == content
        assert made.texts == whole.texts
        assert made.n_resumed == max(n for n in (0, 3, 6, 9, 10) if ends[n] <= (kept or 0))


def test_a_kill_between_two_batches_loses_one_at_most(tmp_path: Path) -> None:
    generate(tmp_path / "whole")
    path, passes = tmp_path / "killed", iter(range(10**6))

    class Killed(BaseException):
        pass

    def kill(*_: Any) -> None:
        if next(passes) == 40:
            raise Killed

    model = build()
    model.get_input_embeddings().register_forward_pre_hook(kill)
    with pytest.raises(Killed):
        generate(path, model)
    n_written = len(path.read_text().splitlines())
    assert n_written in (3, 6, 9)
    assert generate(path).n_resumed == n_written
    assert path.read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_text_does_not_depend_on_those_beside_it(tmp_path: Path) -> None:
    alone, together = (generate(tmp_path / str(size), batch_size=size) for size in (1, 10))
    assert alone.texts == together.texts
    assert len(set(alone.texts)) == len(ATTRIBUTES)
    assert generate(tmp_path / "other", random_state=1).texts != alone.texts


def with_little_memory(n_rows: int) -> Any:
    model = build()

    def check(_module: Any, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs[0]) > n_rows:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    model.get_input_embeddings().register_forward_pre_hook(check)
    return model


def test_out_of_memory_halves_the_batch(tmp_path: Path) -> None:
    small = generate(tmp_path / "whole", with_little_memory(2), batch_size=6)
    assert small.texts == generate(tmp_path / "small", batch_size=6).texts
    with pytest.raises(MemoryError, match="not even one text fits into memory, with batch_size=1"):
        generate(tmp_path / "none", with_little_memory(0))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": build(seed=1)}, "model was "),
        ({"attributes": [None] * 10}, "attributes was "),
        ({"sampling": Sampling(temperature=0.9, max_new_tokens=12)}, "temperature was 1.0, is 0.9"),
        ({"random_state": 7}, "random_state was 0, is 7"),
        ({"batch_size": 4}, "batch_size was 3, is 4"),
        ({"date": "2025-02-01"}, "date was 2024-07-26, is 2025-02-01"),
    ],
)
def test_a_file_of_another_generation_is_refused(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    generate(tmp_path / "t")
    before = (tmp_path / "t").read_bytes()
    with pytest.raises(ValueError, match=rf"comes from another generation: .*{named}"):
        generate(tmp_path / "t", **change)
    assert (tmp_path / "t").read_bytes() == before


def test_files_that_it_has_not_written_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text("my own texts\n")
    with pytest.raises(ValueError, match=r"exists, but no t\.settings\.json beside it"):
        generate(path)
    assert path.read_text() == "my own texts\n"
    generate(tmp_path / "u")
    content = (tmp_path / "u").read_bytes()
    lines = content.splitlines(keepends=True)
    for damaged in (b"".join([lines[1], lines[0], *lines[2:]]), b"no json\n" * 10, content + lines[0]):
        (tmp_path / "u").write_bytes(damaged)
        with pytest.raises(ValueError, match="holds lines that generate_texts did not write"):
            generate(tmp_path / "u")
    (tmp_path / "u.settings.json").write_text("{")
    with pytest.raises(ValueError, match=r"u\.settings\.json cannot be read"):
        generate(tmp_path / "u")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attributes": []}, "attributes must be a sequence"),
        ({"attributes": "female"}, "attributes must be a sequence"),
        ({"attributes": [1]}, "attributes must be a sequence"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"random_state": -1}, "random_state=-1"),
    ],
)
def test_arguments_that_cannot_be_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        generate(tmp_path / "t", **change)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.1}, {"max_new_tokens": 0}], ids=str
)
def test_sampling_that_cannot_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Sampling(**options)


def test_a_model_without_an_end_is_refused(tmp_path: Path) -> None:
    model, tokenizer = build(), _tiny.tokenizer()
    model.generation_config.eos_token_id = tokenizer.eos_token = None
    with pytest.raises(ValueError, match="names a token that ends an answer"):
        generate_texts(model, tokenizer, [None], path=tmp_path / "t")


def test_the_states_of_a_batch_are_not_copied_for_every_token() -> None:
    model = build()
    states = prompt_states(model, torch.tensor([prompt_tokens(TOKENIZER, messages())])).cache
    states.batch_repeat_interleave(3)
    _reserve(states, 4)
    places = [layer.keys.data_ptr() for layer in states.layers]
    with torch.no_grad():
        for _ in range(4):
            model(input_ids=torch.ones(3, 1, dtype=torch.long), cache=states, use_cache=True)
    assert [layer.keys.data_ptr() for layer in states.layers] == places
    assert states.get_seq_length() == len(prompt_tokens(TOKENIZER, messages())) + 4
