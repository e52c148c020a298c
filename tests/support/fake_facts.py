"""Facts of models and corpora that no file stands behind, for tests of the torch-free half."""

from __future__ import annotations

from rewarm.records.facts import CorpusFacts, ModelFacts, Role

TOKENIZER = "t" * 64


def make_model_facts(*, tokenizer: str = TOKENIZER, max_positions: int = 512) -> ModelFacts:
    return ModelFacts(
        folder="base",
        model_type="llama",
        architecture="LlamaForCausalLM",
        num_parameters=1_000_000,
        num_embedding_parameters=100_000,
        num_head_parameters=0,
        num_layers=4,
        hidden_size=100,
        num_heads=4,
        num_key_value_heads=4,
        head_size=25,
        intermediate_size=300,
        vocab_size=1000,
        max_positions=max_positions,
        tied_embeddings=True,
        saved_dtype="float32",
        bos_token_id=0,
        eos_token_id=1,
        weights_fingerprint="w" * 64,
        tokenizer_fingerprint=tokenizer,
    )


def make_corpus_facts(
    name: str,
    role: Role = "new",
    *,
    num_tokens: int = 1_000_000,
    measured: bool = True,
    tokenizer: str = TOKENIZER,
) -> CorpusFacts:
    return CorpusFacts(
        name=name,
        role=role,
        key=name * 8,
        tokens=name * 4 if measured else "",
        folder=f"prepared/{name}",
        measured=measured,
        num_documents=1000,
        num_tokens=num_tokens,
        num_bytes=4 * num_tokens,
        held_out_documents=10,
        held_out_tokens=10_000,
        held_out_bytes=40_000,
        begin_token_ids=(0,),
        end_token_ids=(1,),
        begin_tokens=("<s>",),
        end_tokens=("</s>",),
        tokenizer_fingerprint=tokenizer,
    )
