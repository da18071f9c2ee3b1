#!/usr/bin/env python3
"""tools/fetch-model against a small server on 127.0.0.1 that answers as the Hugging Face hub does: small files by a
redirect within the hub and git's blob hash, large ones by a redirect to another host and their SHA-256."""
import hashlib
import http.server
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest

TOOL = os.path.join(os.environ.get("FB3_SOURCE_DIR", os.path.dirname(__file__) + "/../.."), "tools", "fetch-model")
NAME = "microsoft/deberta-v3-base"
COMMIT, OLDER = "8ccc9b6f36199bec6961081d44eb72fb3f7353f3", "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_SecretSecretSecret"
LARGE = ("model.safetensors", "pytorch_model.bin", "spm.model")


def default_files():
    return {"config.json": b'{"model_type": "deberta-v2"}\n', "spm.model": bytes(range(256)) * 40,
            "tokenizer_config.json": b"{}\n", "pytorch_model.bin": os.urandom(300000)}


class Hub:
    """The hub and its store of large files; `rules` change how it answers."""

    def __init__(self):
        self.files, self.rules, self.log, self.lock = default_files(), {}, [], threading.Lock()
        self.hub, self.store = (http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler(s)) for s in (0, 1))
        for server in (self.hub, self.store):
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self.hub.server_port}"

    def close(self):
        for server in (self.hub, self.store):
            server.shutdown()
            server.server_close()

    def taken(self, rule):
        """Whether the rule holds; a counted one holds that many times."""
        with self.lock:
            left = self.rules.get(rule, 0)
            if left and left is not True:
                self.rules[rule] = left - 1
            return bool(left)

    def handler(hub, is_store):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, status, headers=(), body=b""):
                self.send_response(status)
                for key, value in dict(headers).items():
                    self.send_header(key, value)
                if "Content-Length" not in dict(headers):
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def content(self, name, body):
                start = int((re.match(r"bytes=(\d+)-$", self.headers.get("Range", "")) or [0, 0])[1])
                if hub.taken("corrupt " + name):
                    body = body[:-1] + bytes([body[-1] ^ 1])
                headers = {"Content-Length": str(len(body) - start)}
                if start:
                    headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                stop = len(body)
                if self.command == "GET" and hub.taken("cut " + name):
                    stop = start + (len(body) - start) // 2
                self.send_response(206 if start else 200)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("ETag", '"%s"' % hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest())
                self.send_header("X-Repo-Commit", COMMIT)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body[start:stop])
                    if stop < len(body):
                        self.close_connection = True

            def do_GET(self):
                hub.log.append((is_store, self.command, self.path, dict(self.headers)))
                name = self.path.rsplit("/", 1)[-1]
                body = hub.files.get(name)
                if is_store:
                    return self.content(name, body)
                if hub.taken("busy"):
                    return self.answer(503)
                if hub.rules.get("gated") and self.headers.get("Authorization") != "Bearer " + TOKEN:
                    return self.answer(401)
                match = re.match(f"/{NAME}/resolve/([^/]+)/", self.path)
                if self.path.startswith("/api/resolve-cache/"):
                    return self.content(name, body)
                if not match or match[1] not in ("main", "v2", COMMIT, OLDER) or body is None:
                    return self.answer(404, {"X-Error-Code": "EntryNotFound"})
                if name not in LARGE:
                    return self.answer(307, {"Location": f"/api/resolve-cache/models/{NAME}/{COMMIT}/{name}",
                                             "X-Repo-Commit": COMMIT})
                return self.answer(302, {"Location": f"http://localhost:{hub.store.server_port}/xyz/{name}",
                                         "X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(body)),
                                         "X-Linked-Etag": '"%s"' % hashlib.sha256(body).hexdigest(), "ETag": '"other"'})

            do_HEAD = do_GET

        return Handler


class FetchModel(unittest.TestCase):
    def setUp(self):
        self.hub, self.cache = Hub(), pathlib.Path(tempfile.mkdtemp(prefix="fetch-model-"))
        self.model = self.cache / "models--microsoft--deberta-v3-base"
        self.addCleanup(shutil.rmtree, self.cache)
        self.addCleanup(self.hub.close)

    def fetch(self, *arguments, expect=0, **environment):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
        done = subprocess.run([TOOL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              env=clean | {"HF_ENDPOINT": self.hub.endpoint, "HF_HUB_CACHE": str(self.cache)} | environment)
        self.assertEqual(done.returncode, expect, done.stdout)
        self.assertNotIn(TOKEN, done.stdout)
        return done.stdout

    def assert_complete(self, revision="main"):
        commit = (self.model / "refs" / revision).read_text()
        self.assertEqual(commit, COMMIT)
        for name, body in self.hub.files.items():
            link = self.model / "snapshots" / commit / name
            self.assertTrue(os.readlink(link).startswith("../../blobs/"))
            self.assertEqual(link.read_bytes(), body)
        self.assertEqual(list((self.model / "blobs").glob("*.incomplete")), [])

    def gets(self, name):
        return [entry for entry in self.hub.log if entry[1] == "GET" and entry[2].endswith("/" + name)]

    def test_default_model(self):
        self.assertIn("--model_name_or_path microsoft/deberta-v3-base", self.fetch())
        self.assert_complete()
        blob = hashlib.sha256(self.hub.files["pytorch_model.bin"]).hexdigest()
        self.assertTrue((self.model / "blobs" / blob).exists())

    def test_again_downloads_nothing(self):
        self.fetch(NAME)
        before = len([e for e in self.hub.log if e[1] == "GET"])
        self.assertIn("pytorch_model.bin: already there", self.fetch(NAME))
        self.assertEqual(len([e for e in self.hub.log if e[1] == "GET"]), before)

    def test_safetensors_come_first(self):
        self.hub.files["model.safetensors"] = os.urandom(1000)
        self.fetch()
        self.assertEqual(self.gets("pytorch_model.bin"), [])
        self.assertTrue((self.model / "snapshots" / COMMIT / "model.safetensors").exists())

    def test_goes_on_after_a_cut(self):
        self.hub.rules["cut pytorch_model.bin"] = 2
        self.fetch()
        self.assert_complete()
        ranges = [e[3].get("Range") for e in self.gets("pytorch_model.bin") if e[0]]
        self.assertEqual(ranges, [None, "bytes=150000-", "bytes=225000-"])

    def test_goes_on_in_another_run(self):
        self.hub.rules["cut pytorch_model.bin"] = 5
        self.assertIn("run the same command again", self.fetch(expect=1))
        self.assertFalse((self.model / "refs" / "main").exists())
        self.assertIn("going on at", self.fetch())
        self.assert_complete()

    def assert_refused_content(self, name):
        self.assertIn(name + ": the content does not have the size and hash", self.fetch(expect=1))
        self.assertFalse((self.model / "snapshots" / COMMIT / name).exists())
        self.fetch()
        self.assert_complete()

    def test_corrupted_on_the_way(self):
        self.hub.rules["corrupt pytorch_model.bin"] = 1
        self.assert_refused_content("pytorch_model.bin")

    def test_corrupted_by_another_program(self):
        body = self.hub.files["config.json"]
        part = self.model / "blobs" / (hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest() + ".incomplete")
        part.parent.mkdir(parents=True)
        part.write_bytes(b"x" * len(body))
        self.assert_refused_content("config.json")

    def test_another_revision(self):
        self.assertIn("--model_revision v2", self.fetch(NAME, "--revision", "v2"))
        self.assert_complete("v2")
        self.assertFalse((self.model / "refs" / "main").exists())

    def test_a_commit_needs_no_ref(self):
        self.fetch(NAME, "--revision=" + COMMIT)
        self.assertFalse((self.model / "refs").exists())
        self.assertTrue((self.model / "snapshots" / COMMIT / "config.json").exists())

    def test_token_goes_to_the_hub_alone(self):
        self.hub.rules["gated"] = True
        self.assertIn("the hub says 401", self.fetch(expect=2))
        self.hub.log.clear()
        self.fetch(HF_TOKEN=TOKEN)
        self.assert_complete()
        for is_store, _, path, headers in self.hub.log:
            self.assertEqual(headers.get("Authorization"), None if is_store else "Bearer " + TOKEN, path)
        self.assertIn("HF_TOKEN has characters", self.fetch(HF_TOKEN='a"\nurl = x', expect=2))

    def test_a_busy_hub_is_asked_again(self):
        self.hub.rules["busy"] = 1
        self.fetch()
        self.assert_complete()

    def test_what_is_not_there(self):
        self.assertIn("has no config.json at revision main", self.fetch("org/absent", expect=2))
        self.assertIn("at revision v9", self.fetch(NAME, "--revision", "v9", expect=2))
        del self.hub.files["pytorch_model.bin"]
        self.assertIn("neither model.safetensors nor pytorch_model.bin", self.fetch(expect=2))
        self.assertIn("cannot reach", self.fetch(HF_ENDPOINT="http://127.0.0.1:9", expect=1))

    def test_command_line(self):
        for arguments in (["../x"], ["a/b/c"], ["a", "b"], ["--revision"], ["--revision", "../x"], ["--speed"], [""]):
            self.fetch(*arguments, expect=2)
        self.assertIn("usage: tools/fetch-model", self.fetch("--help"))
        self.assertEqual(self.hub.log, [])

    def test_places_of_the_cache(self):
        other = self.cache / "home with a space"
        self.fetch(HF_HUB_CACHE="", HF_HOME=str(other))
        self.assertTrue((other / "hub" / self.model.name / "refs" / "main").exists())
        self.fetch("--cache", str(self.cache / "given"))
        self.assertTrue((self.cache / "given" / self.model.name / "refs" / "main").exists())


if __name__ == "__main__":
    for tool in ("bash", "curl", "sha256sum", "sha1sum"):
        if not shutil.which(tool):
            print(f"skipped: {tool} is missing")
            sys.exit(77)
    unittest.main()
