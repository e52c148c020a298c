"""A chat template for a base that has none."""

from __future__ import annotations

import json
from pathlib import Path

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}s: {{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistants: {% endif %}"
)


def give_chat_template(base: Path, template: str = CHAT_TEMPLATE) -> Path:
    """Write a chat template into a base's tokenizer_config.json; return the base."""
    path = base / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "chat_template": template}), encoding="utf-8")
    return base
