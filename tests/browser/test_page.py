"""The page as people see it: a real Chromium on a real `tidings up` with its demo."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Screens
from tests.integration.command_line import tidings
from tidings.demo.host import host_id

UNREAD = re.compile(r"\bunread\b")
LATER_MS = 40_000  # for what takes an alert or a mail to come about
LIVE = Path(__file__).parents[2] / "docs" / "live.md"
# Runs a client of docs/live.md until it was told something, and again after a break.
WATCH = """
async ([code, name, token]) => {
  const sockets = [];
  const WebSocket = class extends window.WebSocket { constructor(url) { super(url); sockets.push(this); } };
  const client = new Function("WebSocket", `${code}; return ${name};`)(WebSocket);
  const rows = new Map(), frames = [];
  let more;
  const changed = (frame) => { frames.push(frame); more?.(); };
  const until = (holds) => new Promise((done) => { more = () => holds() && done(); more(); });
  const filter = { key: "cpu", op: "exists" };
  const given = { filter, token: () => token, rows, changed, ended: (error) => { throw error; } };
  const stop = client("entities/host", given);
  await until(() => frames.filter((frame) => frame.event).length >= 2);
  const held = [...rows.values()][0].cpu;
  sockets[0]?.close();
  if (sockets.length) await until(() => frames.some((frame) => frame.ok?.resumed));
  const so_far = frames.length;
  await until(() => frames.slice(so_far).some((frame) => frame.event));
  stop();
  return { rows: rows.size, held: typeof held, positions: frames.map((f) => f.position ?? f.ok?.position) };
}
"""


def row(page: Page, title: str) -> Locator:
    return page.locator("article.notice", has_text=title)


def views(page: Page) -> Iterator[str]:
    """Each view of the page, one after the other: the three tabs, the form, and the open inbox."""
    for name in ("entities", "configs", "mail"):
        page.locator(f"#tab-{name}").click()
        expect(page.locator(f"#{name}")).to_be_visible()
        yield name
    page.locator("#tab-configs").click()
    page.locator("#configs .create").click()
    expect(page.locator("form.config-form")).to_be_visible()
    yield "the form"
    page.locator("#bell").click()
    expect(page.locator("#inbox")).to_be_visible()
    yield "the inbox"


def test_without_a_token_it_asks_for_one(screens: Screens) -> None:
    page = screens.blank()
    page.goto(screens.running.url)
    expect(page.locator("#sign-in")).to_be_visible()
    expect(page.locator("#app")).to_be_hidden()
    page.locator("#token").fill("not.a.token")
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#sign-in .problem")).to_contain_text("sign in")
    page.locator("#token").fill(screens.running.token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#status[data-status=live]")).to_be_visible()
    assert "token" not in page.url


def test_the_printed_link_shows_the_first_notice_about_this_machine(screens: Screens) -> None:
    page = screens.signed_in()
    assert "token" not in page.url
    expect(page.locator("#user")).to_have_text("you")
    expect(page.locator("#bell .badge")).to_have_text(re.compile(r"^[1-9]"))
    page.locator("#bell").click()
    first = row(page, f"Tidings watches {host_id()}")
    expect(first).to_have_class(UNREAD)
    first.locator("h3").click()
    expect(first).not_to_have_class(UNREAD)
    screens.sign_in(page)
    page.locator("#bell").click()
    expect(first).to_be_visible()
    expect(first).not_to_have_class(UNREAD)


def test_a_click_reads_and_the_badge_falls_for_good(screens: Screens) -> None:
    running = screens.running
    token = tidings(running.cwd, "token", "--user", "ann").stdout.strip()
    page, other = screens.signed_in(token), screens.signed_in(token)
    badge = page.locator("#bell .badge")
    expect(badge).to_be_hidden()
    for title in ("first of two", "second of two"):
        running.client.call("POST", "/v1/notices", {"to": ["ann"], "title": title})
    expect(badge).to_have_text("2")
    expect(page.locator(".toast", has_text="second of two")).to_be_visible()
    page.locator("#bell").click()
    row(page, "first of two").locator("h3").click()
    expect(row(page, "first of two")).not_to_have_class(UNREAD)
    for device in (page, other):
        expect(device.locator("#bell .badge")).to_have_text("1")
        expect(device).to_have_title("(1) Tidings")

    page.reload()
    expect(page.locator("#sign-in")).to_be_visible()
    screens.sign_in(page, token)
    expect(badge).to_have_text("1")
    page.locator("#bell").click()
    expect(row(page, "second of two")).to_have_class(UNREAD)
    expect(row(page, "first of two")).not_to_have_class(UNREAD)
    page.locator("#inbox .mark-all").click()
    for device in (page, other):
        expect(device.locator("#bell .badge")).to_be_hidden()


def test_the_machine_is_a_live_row(screens: Screens) -> None:
    page = screens.signed_in()
    host = page.locator("#entities tbody tr", has_text=host_id())
    expect(host).to_have_count(1)
    for field in ("cpu", "memory", "load"):
        expect(host.locator(".field .name", has_text=re.compile(f"^{field}$"))).to_be_visible()
    version, fields = host.locator("td.number"), host.locator(".fields")
    was, said = version.inner_text(), fields.inner_text()
    expect(version).not_to_have_text(was)
    expect(fields).not_to_have_text(said, use_inner_text=True)


def test_a_config_is_made_in_the_form_and_a_wrong_recipient_is_told(screens: Screens) -> None:
    page = screens.signed_in()
    page.locator("#tab-configs").click()
    page.locator("#configs .create").click()
    page.locator("#c-name").fill("temperature")
    page.locator("#c-metric").fill('{"high":1.10,"low":1e0}')  # no JSON library would give these back
    page.locator("#c-channel").fill("inbox: yuo")
    page.get_by_role("button", name="Create", exact=True).click()
    problem = page.locator("form.config-form .problem")
    expect(problem).to_contain_text("422")
    expect(problem).to_contain_text("yuo")
    expect(problem).to_contain_text("you")
    page.locator("#c-channel").fill("inbox: you")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.locator(".toast", has_text="“temperature” created")).to_be_visible()
    made = page.locator("li.config", has_text="temperature")
    expect(made).to_have_count(1)
    made.get_by_role("button", name="Edit temperature").click()
    expect(page.locator("#c-metric")).to_have_value('{"high":1.10,"low":1e0}')
    page.get_by_role("button", name="Cancel").click()


def test_an_unread_notice_is_seen_as_a_mail(screens: Screens) -> None:
    notice = {"to": ["you"], "title": "nobody reads me", "text": "so I am mail", "forward_after": 0}
    screens.running.client.call("POST", "/v1/notices", notice)
    page = screens.signed_in()
    page.locator("#tab-mail").click()
    mail = page.locator(".mail", has_text="nobody reads me")
    expect(mail).to_be_visible(timeout=LATER_MS)
    mail.locator("summary").click()
    expect(mail.locator("pre")).to_contain_text("so I am mail")


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {n['target']}" for v in found if v["impact"] in ("serious", "critical") for n in v["nodes"]]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_serious_stands_in_the_way_of_anybody(screens: Screens, dark: bool) -> None:
    page = screens.signed_in(dark=dark)
    expect(page.locator("#entities tbody tr")).not_to_have_count(0)
    for view in views(page):
        assert serious(page) == [], view


def test_on_a_phone_nothing_scrolls_sideways(screens: Screens) -> None:
    page = screens.signed_in(width=390)
    expect(page.locator("#entities tbody tr")).not_to_have_count(0)
    for view in views(page):
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, view
    first = row(page, "Tidings watches")
    first.scroll_into_view_if_needed()  # a busy machine has more to tell, above it
    expect(first).to_be_in_viewport()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_documents_can_be_read_by_anybody(screens: Screens, dark: bool) -> None:
    page = screens.blank(dark=dark, width=390)
    page.goto(f"{screens.running.url}/docs#notices-send")
    expect(page.locator("#notices-send dl")).to_contain_text("Idempotency-Key")
    expect(page.locator("#limits")).to_contain_text("title_characters")
    page.locator("#notices-send").get_by_role("link", name="DirectNotice").first.click()
    expect(page.locator("#type-DirectNotice")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert serious(page) == []
    assert screens.faults == []


def test_the_button_provokes_an_alert(screens: Screens) -> None:
    page = screens.signed_in()
    page.locator("#stress").click()
    expect(page.locator(".toast", has_text="This machine is being made busy")).to_be_visible()
    page.locator("#bell").click()
    open_ones = page.locator("article.notice:not(.is-ended)", has_text=f"cpu of {host_id()} is")
    expect(open_ones).to_have_count(1, timeout=LATER_MS)


def test_an_alert_is_muted_for_an_hour_and_heard_again(screens: Screens) -> None:
    page = screens.signed_in()
    page.locator("#stress").click()
    page.locator("#bell").click()
    about = row(page, f"cpu of {host_id()} is").first
    expect(about).to_be_visible(timeout=LATER_MS)
    about.locator("h3").click()
    about.get_by_role("button", name="1 hour").click()
    muted = page.locator("#inbox .silences li")
    expect(muted).to_have_count(1)
    expect(muted).to_contain_text("No messages about “overuse” until")
    other = screens.signed_in()
    other.locator("#bell").click()
    expect(other.locator("#inbox .silences li")).to_have_count(1)
    muted.get_by_role("button", name="End the silence about “overuse”").click()
    expect(page.locator("#inbox .silences")).to_be_hidden()


def test_the_clients_of_the_live_document_follow_the_machine(screens: Screens) -> None:
    code = "\n".join(re.findall(r"^```js\n(.*?)^```", LIVE.read_text(), re.DOTALL | re.MULTILINE))
    page = screens.signed_in()
    for name in ("follow", "stream"):
        found: dict[str, Any] = page.evaluate(WATCH, [code, name, screens.running.token])
        assert found["rows"] == 1, name
        assert found["held"] in ("number", "object"), name
        positions = [p for p in found["positions"] if p]
        assert len(set(positions)) >= 4 - (name == "stream"), name
    assert not screens.faults
