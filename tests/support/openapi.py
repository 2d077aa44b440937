"""Validates an OpenAPI document, and answers against it: arguments are the document and a file of answers, one JSON per line
with method, path (as the document names it), status, kind and body. Prints what does not fit."""
import json
import sys

from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import validate

document = json.load(open(sys.argv[1]))
validate(document)
problems = []
for line in open(sys.argv[2]):
    answer = json.loads(line)
    name = f"{answer['method']} {answer['path']} {answer['status']}"
    response = document["paths"][answer["path"]][answer["method"]]["responses"].get(str(answer["status"]))
    if response is None:
        problems.append(f"{name} is not described")
        continue
    if "$ref" in response:
        response = document["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
    kind = answer["kind"].split(";")[0]
    if kind not in response["content"]:
        problems.append(f"{name}: {kind} is not described")
        continue
    if kind != "application/json":
        continue
    schema = {**response["content"][kind]["schema"], "components": document["components"]}
    for error in Draft202012Validator(schema, format_checker=FormatChecker()).iter_errors(json.loads(answer["body"])):
        problems.append(f"{name}: {error.json_path}: {error.message[:300]}")
print("\n".join(problems))
sys.exit(bool(problems))
