"""GET /docs: the OpenAPI document as one page to read, without a script and with nothing from
elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any

from fastapi import APIRouter, Request, Response

from web.assets import Asset

Document = dict[str, Any]

_METHODS = ("get", "post", "put", "delete")
_IN_CURL = {"{session_id}": "$id", "{name}": "order.txt", "{sweep_id}": "$sweep"}


def manual_router(document: Callable[[], Document]) -> APIRouter:
    """GET /docs; made when it is first asked for."""
    router = APIRouter()
    made: list[Asset] = []

    async def manual(request: Request) -> Response:
        if not made:
            made.append(Asset("manual.html", page(document()).encode()))
        return made[0].answer(request)

    router.add_api_route("/docs", manual, methods=["GET", "HEAD"], include_in_schema=False)
    return router


def page(document: Document) -> str:
    return "".join(_Manual(document).page())


class _Manual:
    """Writes HTML; whatever stands in the document is escaped."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._schemas: Document = document["components"]["schemas"]
        self._by_tag: dict[str, list[tuple[str, str, Document]]] = {
            tag["name"]: [] for tag in document["tags"]
        }
        for path, methods in document["paths"].items():
            for method in _METHODS:
                if method in methods:
                    operation = methods[method]
                    self._by_tag[operation["tags"][0]].append((method.upper(), path, operation))

    def page(self) -> Iterator[str]:
        info = self._document["info"]
        yield (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(info['title'])} API</title>"
            '<link rel="icon" href="static/icon.svg">'
            '<link rel="stylesheet" href="static/colours.css">'
            '<link rel="stylesheet" href="static/manual.css">'
            f"</head><body><header><h1>{escape(info['title'])} API "
            f"<small>{escape(info['version'])}</small></h1></header>"
        )
        yield from self._contents()
        yield "<main>"
        yield _prose(info["description"])
        yield (
            '<p>The same for machines: <a href="openapi.json">openapi.json</a>. The command lines '
            "below run as they stand, with these set:</p>"
            "<pre>url=http://127.0.0.1:8000\ntoken=…   # the operator's\nid=…      # of a session\n"
            "sweep=…   # the number of one</pre>"
        )
        for tag in self._document["tags"]:
            yield f"<section><h2 id={_quoted(tag['name'])}>{escape(tag['name'].capitalize())}</h2>"
            yield _prose(tag["description"])
            for method, path, operation in self._by_tag[tag["name"]]:
                yield from self._operation(method, path, operation)
            yield "</section>"
        yield from self._values()
        yield "</main></body></html>"

    def _contents(self) -> Iterator[str]:
        yield '<nav aria-label="Contents"><details open><summary>Contents</summary>'
        for tag, operations in self._by_tag.items():
            yield f"<h2><a href={_quoted('#' + tag)}>{escape(tag.capitalize())}</a></h2><ul>"
            for method, _, operation in operations:
                to = _quoted("#" + operation["operationId"])
                yield f"<li><a href={to}>{_badge(method)} {escape(operation['summary'])}</a></li>"
            yield "</ul>"
        yield '<h2><a href="#values">Values</a></h2></details></nav>'

    # One operation

    def _operation(self, method: str, path: str, operation: Document) -> Iterator[str]:
        name = _quoted(operation["operationId"])
        yield f"<article id={name}><h3>{escape(operation['summary'])}</h3>"
        shown = escape(path).replace("/", "/<wbr>")
        yield f'<p class="route">{_badge(method)} <code>{shown}</code></p>'
        if operation.get("security"):
            tag = operation["tags"][0]
            only = "" if tag == "operator" else ", where <code>CLAIM_NEEDS_TOKEN</code> is set"
            yield f'<p class="token">Needs the operator\'s token{only}.</p>'
        yield _prose(operation["description"])
        yield from self._parameters(operation.get("parameters", []))
        if body := operation.get("requestBody"):
            yield from self._body(body)
        typed = escape(self._curl(method, path, operation))
        yield f'<h4>On the command line</h4><pre tabindex="0">{typed}</pre>'
        yield from self._answers(operation["responses"])
        yield "</article>"

    def _curl(self, method: str, path: str, operation: Document) -> str:
        media = operation.get("requestBody", {}).get("content", {}).get("application/json")
        return curl(method, path, operation, media and self._example(media))

    def _parameters(self, parameters: list[Document]) -> Iterator[str]:
        if not parameters:
            return
        rows = [
            (
                f"<code>{escape(each['name'])}</code>",
                f"{each['in']}{', required' if each['required'] else ''}",
                self._type(each["schema"]),
                _inline(each.get("description", "")),
            )
            for each in parameters
        ]
        yield "<h4>Parameters</h4>"
        yield from _table(("name", "in", "value", "what it does"), rows)

    def _body(self, body: Document) -> Iterator[str]:
        optional = "" if body.get("required") else ", which may be left out"
        for kind, media in body["content"].items():
            yield f"<h4>Body: <code>{escape(kind)}</code>{optional}</h4>"
            schema = self._resolved(media["schema"])
            if properties := schema.get("properties"):
                required = schema.get("required", [])
                yield from self._fields(properties, required)
            else:
                yield _prose(schema.get("description", ""))
            if kind == "application/json":
                yield _example(self._example(media))

    def _answers(self, responses: Document) -> Iterator[str]:
        yield "<h4>Answers</h4>"
        good = {status: it for status, it in responses.items() if status < "400"}
        for status, answer in good.items():
            yield f'<p><b class="good">{status}</b> {_inline(answer["description"])}'
            for name, header in answer.get("headers", {}).items():
                yield f" <code>{escape(name)}</code>: {_inline(header['description'])}"
            yield "</p>"
            for kind, media in answer.get("content", {}).items():
                of = self._type(media["schema"])
                yield f"<details><summary><code>{escape(kind)}</code>: {of}</summary>"
                yield f"{_example(self._example(media))}</details>"
        rows = [
            (f'<b class="bad">{status}</b>', self._words(answer))
            for status, answer in sorted(responses.items())
            if status >= "400"
        ]
        if rows:
            yield "<details><summary>Errors</summary>"
            yield from _table(("status", "means"), rows)
            yield "</details>"

    def _words(self, answer: Document) -> str:
        """What an error means, and how it sounds; one that is no Problem names what it is."""
        said = _inline(answer["description"])
        media = answer.get("content", {}).get("application/json", {})
        example = media.get("example")
        if example is None:
            return f"{said} {self._type(media['schema'])}" if media else said
        return f"{said}<br><q>{escape(example['detail'])}</q>"

    # Values

    def _values(self) -> Iterator[str]:
        yield '<section><h2 id="values">Values</h2>'
        for name, schema in sorted(self._schemas.items()):
            yield f"<article id={_quoted(name)}><h3>{escape(name)}</h3>"
            yield _prose(schema.get("description", ""))
            if "enum" in schema:
                yield f"<p>{self._type({**schema, 'title': ''})}</p>"
            else:
                yield from self._fields(schema.get("properties", {}), schema.get("required", []))
            yield "</article>"
        yield "</section>"

    def _fields(self, properties: Document, required: list[str]) -> Iterator[str]:
        rows = [
            (
                f"<code>{escape(name)}</code>",
                self._type(schema) + ("" if name in required else ", optional"),
                _inline(schema.get("description", "")),
            )
            for name, schema in properties.items()
        ]
        told = any(row[2] for row in rows)
        heads = ("field", "value", "what it is") if told else ("field", "value")
        yield from _table(heads, [row[: len(heads)] for row in rows])

    def _resolved(self, schema: Document) -> Document:
        if "$ref" in schema:
            named: Document = self._schemas[schema["$ref"].rpartition("/")[2]]
            return named
        return schema

    def _example(self, media: Document) -> Any:
        if "example" in media:
            return media["example"]
        return self._resolved(media["schema"])["examples"][0]

    def _type(self, schema: Document) -> str:
        """What a value is, in words."""
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return f"<a href={_quoted('#' + name)}>{escape(name)}</a>"
        if "anyOf" in schema:
            return " or ".join(map(self._type, schema["anyOf"])) + _limits(schema)
        if "const" in schema:
            return f"<code>{escape(str(schema['const']))}</code>"
        if "enum" in schema:
            return ", ".join(f"<code>{escape(str(each))}</code>" for each in schema["enum"])
        if schema.get("type") == "array":
            return f"list of {self._type(schema['items'])}"
        kind = "bytes" if schema.get("format") == "binary" else schema.get("type", "any")
        return escape(str(kind)) + _limits(schema)


def curl(method: str, path: str, operation: Document, example: Any = None) -> str:
    """A command line that asks this, as it is typed; `example` is what it sends as JSON."""
    for each, value in _IN_CURL.items():
        path = path.replace(each, value)
    words = ["curl"]
    if operation.get("security") and operation["tags"] == ["operator"]:
        words.append('-H "Authorization: Bearer $token"')
    content = operation.get("requestBody", {}).get("content", {})
    if "multipart/form-data" in content:
        label = "label" in content["multipart/form-data"]["example"]
        words.append(("-F label='order 17' " if label else "") + "-F file=@order.txt")
    elif "application/octet-stream" in content:
        words.append("-T order.txt")
    elif content:
        words.append(f"-H 'Content-Type: application/json' -d '{json.dumps(example)}'")
    elif method != "GET":
        words.append(f"-X {method}")
    line = " ".join([*words, f'"$url{path}"'])
    answers = operation["responses"].get("200", {}).get("content", {})
    if "text/event-stream" in answers:
        stream = "curl -N -H 'Accept: text/event-stream'"
        line += f"\n{line.replace('curl', stream, 1)}"
    if "text/csv" in answers:
        line += f'\n{line[:-1]}?format=csv"'
    return line


# Small words


def _limits(schema: Document) -> str:
    said = {
        "minimum": "{} or more",
        "exclusiveMinimum": "above {}",
        "maximum": "{} at most",
        "maxLength": "{} characters at most",
    }
    found = [words.format(f"{schema[name]:,}") for name, words in said.items() if name in schema]
    if schema.get("default") is not None:
        found.append(f"<code>{escape(json.dumps(schema['default']))}</code> if not given")
    return f" ({', '.join(found)})" if found else ""


def _badge(method: str) -> str:
    return f'<b class="method {method.lower()}">{method}</b>'


def _quoted(name: str) -> str:
    return f'"{escape(name)}"'


def _inline(text: str) -> str:
    """Code and bold, as docstrings have them."""
    coded = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    return re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", coded)


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(each)}</p>" for each in text.split("\n\n") if each.strip())


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield '<div class="table" tabindex="0"><table><thead><tr>'
    yield "".join(f'<th scope="col">{head}</th>' for head in heads)
    yield "</tr></thead><tbody>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
    yield "</tbody></table></div>"


def _example(example: Any) -> str:
    text = (
        example if isinstance(example, str) else json.dumps(example, indent=2, ensure_ascii=False)
    )
    return f'<pre tabindex="0">{escape(text)}</pre>'
