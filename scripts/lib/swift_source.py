"""Reads Swift source well enough for rules: code without comments and string contents, and blocks."""

import re


def code_only(text):
    """The text with comments and the contents of string literals blanked; every line keeps its number.

    Code inside an interpolation, "\\(...)", is blanked with its string.
    """
    out = []
    position, depth = 0, 0  # depth of nested /* */
    while position < len(text):
        two = text[position:position + 2]
        if depth:
            step = 2 if two in ("/*", "*/") else 1
            depth += {"/*": 1, "*/": -1}.get(two, 0)
            out.append(_blank(text[position:position + step]))
        elif two == "/*":
            depth, step = 1, 2
            out.append("  ")
        elif two == "//":
            end = text.find("\n", position)
            step = (len(text) if end < 0 else end) - position
            out.append(" " * step)
        else:
            literal = _string_at(text, position)
            step = len(literal) or 1
            out.append(_blank(literal) if literal else text[position])
        position += step
    return "".join(out)


def _blank(text):
    return re.sub(r"[^\n]", " ", text)


def _string_at(text, start):
    """The string literal that starts at `start`, or ''. Knows #"raw"# and \"\"\"many lines\"\"\"."""
    opening = re.compile(r'(#*)("""|")').match(text, start)
    if not opening or (start and text[start - 1] == "#"):
        return ""
    hashes, quote = opening.group(1), opening.group(2)
    closing, escape = quote + hashes, "\\" + hashes
    position = opening.end()
    while position < len(text):
        if text.startswith(closing, position):
            return text[start:position + len(closing)]
        if text.startswith(escape + "(", position):
            position = _end_of_parentheses(text, position + len(escape))
        elif text.startswith(escape, position):
            position += len(escape) + 1
        elif text[position] == "\n" and quote == '"':
            return text[start:position]
        else:
            position += 1
    return text[start:]


def _end_of_parentheses(text, position):
    """The position after the parenthesis that closes the one at `position`."""
    depth = 0
    while position < len(text):
        literal = _string_at(text, position) if text[position] in '#"' else ""
        if literal:
            position += len(literal)
            continue
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        position += 1
        if depth == 0:
            break
    return position


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def block_after(code, position):
    """(start, end) of the braces that open next after `position`, or None where a statement ends first.

    Braces inside the parentheses of the head (closures as default values) are passed over.
    """
    round_depth = 0
    while position < len(code):
        character = code[position]
        if character in "([":
            round_depth += 1
        elif character in ")]":
            round_depth -= 1
        elif character == "{" and round_depth == 0:
            return position, _end_of_braces(code, position)
        elif character == "}" and round_depth == 0:
            return None
        position += 1
    return None


def _end_of_braces(code, position):
    depth = 0
    while position < len(code):
        depth += {"{": 1, "}": -1}.get(code[position], 0)
        position += 1
        if depth == 0:
            break
    return position


FUNCTION = re.compile(r"^[ \t]*(?:[\w@]+(?:\([^)\n]*\))?[ \t]+)*(func[ \t]+[^\s(<]+|init[?]?(?=[(<])|deinit\b)", re.M)
LOOP = re.compile(r"(?:^|[\s:{;])(for|while|repeat)\b")
TYPE = re.compile(r"^(?:[\w@]+(?:\([^)\n]*\))?[ \t]+)*(?:struct|class|enum|protocol|actor|typealias)[ \t]+(\w+)", re.M)


def functions(code):
    """(line, name, number of lines) of each function that has a body."""
    for match in FUNCTION.finditer(code):
        if re.search(r"\b(return|self\.|super\.)", match.group(0)):
            continue
        name = match.group(1).replace("func", "").strip()
        head_end = _end_of_head(code, match.end())
        if head_end is None:
            continue
        start = line_of(code, match.start(1))
        yield start, name, line_of(code, _end_of_braces(code, head_end)) - start + 1


def _end_of_head(code, position):
    """Where the body of a function opens; None for a requirement of a protocol, which has none."""
    depth = 0
    while position < len(code):
        character = code[position]
        depth += {"(": 1, ")": -1, "[": 1, "]": -1}.get(character, 0)
        if character == "{" and depth == 0:
            return position
        if character == "}" and depth == 0:
            return None
        if character == "\n" and depth == 0:
            rest = code[position:].lstrip()
            if not re.match(r"(\{|throws\b|->|where\b|async\b|rethrows\b)", rest):
                return None
        position += 1
    return None


def loops(code):
    """(line, body) of each loop, the inner ones as well."""
    for match in LOOP.finditer(code):
        block = block_after(code, match.end())
        if block:
            yield line_of(code, match.start(1)), code[block[0]:block[1]], line_of(code, block[0])


def top_level_types(code):
    """Names of the types that a file declares outside of any other."""
    return [match.group(1) for match in TYPE.finditer(code)]
