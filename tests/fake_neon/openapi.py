"""Neon's published description of its API, fetched from the npm registry and made strict."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from migrator.sandbox import cache as downloads

PACKAGE = "@neondatabase/api-client@2.7.3"
FILE = "package/public-v2-for-users.gen.yaml"
SHA256 = "dacf72ea2d63110b3694c705313e0b2104e9652ae1be3fc01ceebe7b17059c44"
BODY = "application/json"


class Unavailable(Exception):
    """The description cannot be had here."""


@cache
def contract() -> Contract:
    """The description, from the cache or by `npm pack`.

    Raises:
        Unavailable: npm is not installed, or its registry does not answer.
    """
    folder = downloads.fill(f"neon-openapi-{SHA256[:12]}", _fetch, lambda _said: None)
    return Contract(json.loads((folder / "openapi.json").read_text()))


def _fetch(folder: Path) -> None:
    if shutil.which("npm") is None:
        raise Unavailable("npm is not installed")
    packed = subprocess.run(
        ["npm", "pack", "--silent", PACKAGE],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if packed.returncode:
        raise Unavailable(f"npm pack {PACKAGE}: {packed.stderr.strip()[-300:]}")
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as opened:
        member = opened.extractfile(FILE)
        assert member is not None
        text = member.read()
    assert hashlib.sha256(text).hexdigest() == SHA256
    described = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (folder / "openapi.json").write_text(json.dumps(described, default=str))
    archive.unlink()


_formats = jsonschema.FormatChecker(formats=["uuid"])


@_formats.checks("date-time", raises=ValueError)
def _is_date_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


class Contract:
    """Says what breaks the description: a key that is not in it breaks it, too."""

    def __init__(self, described: dict[str, Any]) -> None:
        self._described = described
        self._routes = [
            (re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), path, operations)
            for path, operations in described["paths"].items()
        ]
        self._validators: dict[tuple[str, ...], jsonschema.Draft202012Validator | None] = {}
        self.used: set[tuple[str, str]] = set()

    def request(
        self, method: str, path: str, query: dict[str, str], headers: Any, body: bytes
    ) -> list[str]:
        """What is wrong with a request; an empty list for one that keeps to the description."""
        route, operation = self._operation(method, path)
        if operation is None:
            return [f"{method} {path} is not described"]
        self.used.add((method, route))
        wrong = self._query(route, operation, query)
        if not str(headers.get("Authorization", "")).startswith("Bearer "):
            wrong.append("no bearer token")
        described = operation.get("requestBody")
        if body and described is None:
            return [*wrong, "a body is not described"]
        if body and headers.get("Content-Type") != BODY:
            wrong.append(f"a body of {headers.get('Content-Type')}")
        if not body:
            return [*wrong, "the body is missing"] if (described or {}).get("required") else wrong
        schema = described["content"][BODY]["schema"]
        return wrong + self._checked((method, route, "request"), schema, json.loads(body))

    def response(self, method: str, path: str, status: int, body: Any) -> list[str]:
        """What is wrong with an answer."""
        route, operation = self._operation(method, path)
        if operation is None:
            return [] if status == 404 else [f"{method} {path} is not described"]
        answers = operation["responses"]
        answer = answers.get(str(status), answers["default"] if status >= 400 else None)
        if answer is None:
            return [f"{method} {route} does not answer {status}"]
        content = self._resolved(answer).get("content")
        if content is None:
            return ["a body is not described"] if body else []
        code = str(status) if str(status) in answers else "default"
        return self._checked((method, route, code), content[BODY]["schema"], body)

    def _operation(self, method: str, path: str) -> tuple[str, dict[str, Any] | None]:
        for pattern, route, operations in self._routes:
            if pattern.fullmatch(path) and method.lower() in operations:
                operation = operations[method.lower()]
                shared = operations.get("parameters", [])
                return route, operation | {
                    "parameters": [
                        self._resolved(p) for p in [*shared, *operation.get("parameters", [])]
                    ]
                }
        return path, None

    def _query(self, route: str, operation: dict[str, Any], query: dict[str, str]) -> list[str]:
        known = {p["name"]: p for p in operation["parameters"] if p["in"] == "query"}
        wrong = [f"query parameter {name} is not described" for name in query.keys() - known.keys()]
        wrong += [
            f"query parameter {name} is missing"
            for name, described in known.items()
            if described.get("required") and name not in query
        ]
        for name in query.keys() & known.keys():
            schema = known[name]["schema"]
            kind = self._strict(schema).get("type")
            value = json.loads(query[name]) if kind in ("integer", "boolean") else query[name]
            wrong += self._checked((route, "query", name), schema, value)
        return wrong

    def _checked(self, key: tuple[str, ...], schema: dict[str, Any], value: Any) -> list[str]:
        if key not in self._validators:
            strict = self._strict(schema)
            self._validators[key] = jsonschema.Draft202012Validator(strict, format_checker=_formats)
        return [f"{e.json_path}: {e.message}" for e in self._validators[key].iter_errors(value)]

    def _resolved(self, value: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in value:
            found: Any = self._described
            for part in value["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            value = found
        return value

    def _strict(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The schema as JSON Schema, without references, closed against keys it does not name."""
        schema = dict(self._resolved(schema))
        for part in schema.pop("allOf", ()):
            merged = self._merged(part)
            schema["properties"] = merged.get("properties", {}) | schema.get("properties", {})
            schema["required"] = [*merged.get("required", ()), *schema.get("required", ())]
            schema["type"] = "object"
        if "properties" in schema:
            schema["properties"] = {k: self._strict(v) for k, v in schema["properties"].items()}
            schema.setdefault("additionalProperties", False)
        if isinstance(schema.get("additionalProperties"), dict):
            schema["additionalProperties"] = self._strict(schema["additionalProperties"])
        if "items" in schema:
            schema["items"] = self._strict(schema["items"])
        for several in ("oneOf", "anyOf"):
            if several in schema:
                schema[several] = [self._strict(each) for each in schema[several]]
        if schema.pop("nullable", False):
            schema["type"] = [schema["type"], "null"]
        return {k: v for k, v in schema.items() if k in _KEYWORDS}

    def _merged(self, schema: dict[str, Any]) -> dict[str, Any]:
        schema = dict(self._resolved(schema))
        for part in schema.pop("allOf", ()):
            merged = self._merged(part)
            schema["properties"] = merged.get("properties", {}) | schema.get("properties", {})
            schema["required"] = [*merged.get("required", ()), *schema.get("required", ())]
        return schema


_KEYWORDS = frozenset(
    [
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "oneOf",
        "anyOf",
        "enum",
        "pattern",
        "format",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "maxProperties",
    ]
)
