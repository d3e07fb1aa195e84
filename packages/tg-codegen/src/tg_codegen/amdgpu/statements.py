"""The text of an instruction taken apart: operands between commas, then modifiers between spaces."""

from __future__ import annotations

__all__ = ["split_modifiers", "split_operands"]


def split_operands(text: str) -> tuple[list[str], str]:
    """'v0, v1, s2 clamp' -> (['v0', 'v1', 's2'], 'clamp')."""
    if not text:
        return [], ""
    if ":[" in text and "(" not in text and "|" not in text:
        operands = text.split(", ")
        operands[-1], _, modifiers = operands[-1].partition(" ")
        if not any("," in o for o in operands):  # nothing but the modifiers holds a list
            return operands, modifiers.strip()
    if "(" in text or ":[" in text or "|" in text:
        return _split_carefully(text)
    operands = text.split(",")
    if len(operands) > 1:
        operands = [o.strip() for o in operands]
    last, _, modifiers = operands[-1].partition(" ")
    operands[-1] = last
    return operands, modifiers.strip()


def _split_carefully(text: str) -> tuple[list[str], str]:
    operands, depth, start = [], 0, 0
    end = len(text)
    for i, character in enumerate(text):
        if character in "[(":
            depth += 1
        elif character in "])":
            depth -= 1
        elif character == "," and not depth:
            operands.append(text[start:i].strip())
            start = i + 1
        elif character == " " and not depth and text[start:i].strip() and text[i + 1 : i + 2] not in ",":
            end = i
            break
    operands.append(text[start:end].strip())
    return operands, text[end:].strip()


def split_modifiers(text: str) -> list[str]:
    """Words apart by spaces, brackets kept together."""
    if ", " not in text and ": " not in text and " ," not in text and "[ " not in text:
        return text.split()
    words, depth, word = [], 0, ""
    for character in text:
        if character in " \t," and not depth:
            if word:
                words.append(word)
            word = ""
            continue
        if depth and character in " \t":
            continue
        depth += (character in "[(") - (character in "])")
        word += character
    if word:
        words.append(word)
    merged: list[str] = []
    for word in words:  # `offset: 4` is `offset:4`
        if merged and merged[-1].endswith(":"):
            merged[-1] += word
        else:
            merged.append(word)
    return merged
