"""Writes every object under a prefix of the test bucket into a folder: `s3_dump.py URL PREFIX FOLDER`."""

import pathlib
import sys

import boto3

url, prefix, folder = sys.argv[1:]
keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
client = boto3.client("s3", endpoint_url=url, **keys)
for page in client.get_paginator("list_objects_v2").paginate(Bucket="finance", Prefix=f"{prefix}/"):
    for item in page.get("Contents", []):
        path = pathlib.Path(folder) / item["Key"].removeprefix(f"{prefix}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(client.get_object(Bucket="finance", Key=item["Key"])["Body"].read())
