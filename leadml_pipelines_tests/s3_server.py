"""A server that speaks S3's protocol on loopback, with users, keys and refusals."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import boto3
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

BUCKET = "models"
_POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}


@dataclass(frozen=True)
class S3Server:
    """A server with one empty bucket.

    Attributes:
        url: Its endpoint.
        key_id: Of the user who may do everything.
        secret: Of the same user.
    """

    url: str
    key_id: str
    secret: str

    def environment(self, **changes: str) -> dict[str, str]:
        """The variables by which botocore finds this server, and nothing of the machine's own."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            **changes,
        }

    def use(self, patch: pytest.MonkeyPatch, **changes: str) -> None:
        """Let this process use the server, as a process does that began with these variables."""
        for name, value in self.environment(**changes).items():
            patch.setenv(name, value)
        S3FileSystem.clear_instance_cache()


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Start a server that accepts the key of one user only."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        # What moto holds, it holds for the whole process: an earlier server's refusals too.
        _tell(url, "reset")
        _tell(url, "reset-auth", b"inf")
        anyone = {
            "endpoint_url": url,
            "region_name": "us-east-1",
            "aws_access_key_id": "anyone",
            "aws_secret_access_key": "before refusals begin",
        }
        users = boto3.client("iam", **anyone)
        users.create_user(UserName="writer")
        users.put_user_policy(
            UserName="writer", PolicyName="all", PolicyDocument=json.dumps(_POLICY)
        )
        key = users.create_access_key(UserName="writer")["AccessKey"]
        boto3.client("s3", **anyone).create_bucket(Bucket=BUCKET)
        _tell(url, "reset-auth", b"0")
        yield S3Server(url, key["AccessKeyId"], key["SecretAccessKey"])
    finally:
        server.stop()
        S3FileSystem.clear_instance_cache()


def _tell(url: str, order: str, how_many: bytes = b"") -> None:
    """Have moto forget everything, or let so many questions pass before it refuses strangers."""
    request = urllib.request.Request(  # noqa: S310 - http, of our own server
        f"{url}/moto-api/{order}", how_many, {"Content-Type": "text/plain"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=20):  # noqa: S310
        pass
