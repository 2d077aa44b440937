"""Reads YAML from stdin, checks each Kubernetes manifest against the strict schemas of the versions named as arguments, and prints all documents as JSON."""

import json
import sys

import kubernetes_validate
import yaml

# What kustomize reads is no object of Kubernetes, and what Prometheus reads has no kind.
KINDS = {"ConfigMap", "CronJob", "Deployment", "NetworkPolicy", "Service"}

documents = [document for document in yaml.safe_load_all(sys.stdin) if document is not None]
for document in documents:
    if document.get("kind") in KINDS:
        for version in sys.argv[1:]:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                sys.exit(f"{document['kind']} {document['metadata']['name']}, Kubernetes {version}: {error.message} at {list(error.path)}")
print(json.dumps(documents))
