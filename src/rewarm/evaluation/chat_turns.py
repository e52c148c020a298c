"""A few everyday exchanges, for bases with a chat template whose recipe brings none of its own.

They ask for what any instruction-tuned model knows, so that what is lost is the format and the
manner rather than a fact.
"""

from __future__ import annotations

from rewarm.evaluation.chat import Conversation

__all__ = ["BUILT_IN_CONVERSATIONS"]

_EXCHANGES: tuple[tuple[str, ...], ...] = (
    (
        "Which day comes after Tuesday?",
        "Wednesday comes after Tuesday.",
    ),
    (
        "What is seven times eight?",
        "Seven times eight is 56.",
    ),
    (
        "Why do we see lightning before we hear thunder?",
        "Light travels far faster than sound, so the flash reaches us almost at once while the "
        "thunder takes about three seconds for every kilometre.",
    ),
    (
        "Give me three words that rhyme with light.",
        "Night, bright and sight all rhyme with light.",
    ),
    (
        "How do I boil an egg?",
        "Put the egg into boiling water, wait about seven minutes for a soft yolk or ten for a "
        "firm one, and cool it in cold water before you peel it.",
    ),
    (
        "Translate 'good morning' into French.",
        "In French, 'good morning' is 'bonjour'.",
    ),
    (
        "What is the plural of 'mouse'?",
        "The plural of 'mouse' is 'mice'.",
        "And of 'house'?",
        "The plural of 'house' is 'houses'.",
    ),
    (
        "Write one sentence about autumn.",
        "In autumn the leaves turn red and gold and fall to the ground.",
    ),
    (
        "Is a tomato a fruit or a vegetable?",
        "In botany a tomato is a fruit, because it grows from a flower and holds seeds. In the "
        "kitchen it is usually treated as a vegetable.",
    ),
    (
        "Sort these numbers from small to large: 9, 2, 14, 5.",
        "From small to large they are 2, 5, 9, 14.",
    ),
    (
        "What does a thermometer measure?",
        "A thermometer measures temperature.",
    ),
    (
        "Rewrite this politely: Give me the report.",
        "Could you please send me the report?",
    ),
    (
        "Name the four seasons.",
        "The four seasons are spring, summer, autumn and winter.",
    ),
    (
        "Write a Python function that returns the larger of two numbers.",
        "def larger(first, second):\n    return first if first > second else second",
    ),
    (
        "Thank you, that helped a lot!",
        "You're welcome! Let me know if there is anything else I can help with.",
    ),
    (
        "I have 20 apples and give away 6. How many are left?",
        "You have 14 apples left, because 20 minus 6 is 14.",
        "And if I then eat two?",
        "Then 12 apples are left.",
    ),
    (
        "Explain what a library is to a child.",
        "A library is a place full of books that everybody may borrow, take home, read, and bring "
        "back so that the next person can enjoy them too.",
    ),
    (
        "Which is heavier, a kilogram of feathers or a kilogram of iron?",
        "They weigh the same: each is one kilogram. The feathers only take up far more room.",
    ),
    (
        "Summarise in a few words: The meeting was moved from Monday to Thursday because the room "
        "was not free.",
        "The meeting is now on Thursday, for want of a room on Monday.",
    ),
    (
        "What is the opposite of 'ancient'?",
        "The opposite of 'ancient' is 'modern'.",
    ),
    (
        "How many minutes are in three hours?",
        "There are 180 minutes in three hours.",
    ),
    (
        "Suggest a name for a grey cat.",
        "How about Pebble? It suits a small grey cat well.",
    ),
    (
        "Why does ice float on water?",
        "Water expands when it freezes, so ice is less dense than the liquid and floats.",
    ),
    (
        "Can you tell me what I am thinking right now?",
        "No, I can't know what you are thinking, but I'm happy to talk about it if you tell me.",
    ),
)
_ROLES = ("user", "assistant")

BUILT_IN_CONVERSATIONS: tuple[Conversation, ...] = tuple(
    tuple({"role": _ROLES[turn % 2], "content": text} for turn, text in enumerate(exchange))
    for exchange in _EXCHANGES
)
"""Questions with answers and no system messages, which not every template knows."""
