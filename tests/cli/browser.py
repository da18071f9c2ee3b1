"""Headless Chromium, spoken to over its debugging pipe: what it tells a screen reader of a page."""

import json
import os
import shutil
import subprocess


def chromium():
    return next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)


HEADLESS = ["--headless", "--no-sandbox", "--disable-gpu"]


class Pipe:
    """Commands of the DevTools protocol, each answered before the next; descriptors 3 and 4 are the browser's ends."""

    def __init__(self, profile):
        commands, self.commands = os.pipe()
        self.answers, answers = os.pipe()

        def take_over():
            os.dup2(commands, 20)
            os.dup2(answers, 21)
            os.dup2(20, 3)
            os.dup2(21, 4)

        self.process = subprocess.Popen([chromium()] + HEADLESS + ["--user-data-dir=" + profile, "--remote-debugging-pipe"],
                                        preexec_fn=take_over, close_fds=False, stderr=subprocess.DEVNULL)
        os.close(commands)
        os.close(answers)
        self.rest, self.number, self.events = b"", 0, set()

    def message(self):
        while b"\0" not in self.rest:
            part = os.read(self.answers, 1 << 20)
            if not part:
                raise AssertionError("the browser is gone")
            self.rest += part
        line, self.rest = self.rest.split(b"\0", 1)
        message = json.loads(line)
        self.events.add(message.get("method"))
        return message

    def call(self, method, session=None, **parameters):
        self.number += 1
        command = {"id": self.number, "method": method, "params": parameters}
        if session:
            command["sessionId"] = session
        os.write(self.commands, json.dumps(command).encode() + b"\0")
        answer = self.message()
        while answer.get("id") != self.number:
            answer = self.message()
        if "error" in answer:
            raise AssertionError("%s: %s" % (method, answer["error"]))
        return answer["result"]

    def wait_for(self, event):
        while event not in self.events:
            self.message()

    def close(self):
        self.call("Browser.close")
        self.process.wait(60)
        os.close(self.commands)
        os.close(self.answers)


def accessibility_tree(path, profile):
    """The page's nodes in their order, each a dict with role, name, description and level ("" or None: there is none)."""
    pipe = Pipe(profile)
    target = pipe.call("Target.createTarget", url="about:blank")["targetId"]
    session = pipe.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    pipe.call("Page.enable", session)
    pipe.call("Accessibility.enable", session)
    pipe.call("Page.navigate", session, url="file://" + path)
    pipe.wait_for("Page.loadEventFired")
    nodes = pipe.call("Accessibility.getFullAXTree", session)["nodes"]
    pipe.close()
    by_id, order = {node["nodeId"]: node for node in nodes}, []

    def visit(node):
        if not node["ignored"]:
            properties = {p["name"]: p["value"].get("value") for p in node.get("properties", [])}
            order.append(dict({key: node.get(key, {}).get("value", "") for key in ["role", "name", "description"]},
                              level=properties.get("level")))
        for child in node.get("childIds", []):
            if child in by_id:
                visit(by_id[child])

    visit(nodes[0])
    return order
