"""A tip jar: a small web app whose users tip each other. It holds their keys, all made from the secret in tipjar.key.

make .venv/ready                              # once, in a fresh clone
.venv/bin/gesell serve --data ./my-ledger     # in one terminal: a ledger (or set GESELL_URL to another)
.venv/bin/python examples/tipjar.py           # in another: then open http://127.0.0.1:8421 in two browsers
"""

import os
from dataclasses import replace
from html import escape

from aiohttp import web

from gesell import Client, Custodian, GesellError, OutcomeUnknown, Refused, Unavailable, default_policy

PAGE = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Tip jar</title><h1><a href="/">Tip jar</a></h1>{}'
JOIN = '<form method="post"><label>Your name, like ada: <input name="join"></label> <button>Join</button></form>'
TIP = """<form method="post"><b>{0}</b> <input type="hidden" name="to" value="{0}"> <label>Thank you for
<input name="thanks"></label> <button name="amount" value="0.05">Tip 0.05</button></form>"""
DOUBT = "We don't know yet whether your tip arrived; please don't tip again."
if not os.path.exists("tipjar.key"):
    Custodian.new().save("tipjar.key", passphrase=None)
keys, STEWARD = Custodian.load("tipjar.key"), web.AppKey("steward", Client)
cookies: dict[str, str] = {}  # made from the secret too, so they last; there are no passwords, so don't lose yours


async def connected(app: web.Application):  # one connection for all; founds a commons, as its steward, if it has none
    me, law = keys.peer("the app"), replace(default_policy(), admission="open")
    async with Client(os.environ.get("GESELL_URL", "http://127.0.0.1:8420"), peer=me, patience=5) as link:
        mine = [commons.id for commons in await link.commons_list() if commons.stewards == (me.did,)]
        app[STEWARD] = link.as_commons(mine[0] if mine else await link.found(name="Tips", currency="TIP", policy=law))
        cookies.update({keys.peer(f"cookie of {one.handle}").did: one.handle async for one in app[STEWARD].members()})
        yield


async def answer(request: web.Request) -> web.Response:  # what can go wrong, and what to say then
    try:
        body, status = await (show if request.method == "GET" else join_or_tip)(request), 200
    except OutcomeUnknown as unknown:  # the money may have moved: pay nothing anew, ask by the same envelope
        [result] = await request.app[STEWARD].submit([unknown.envelope])
        body, status = ("It arrived after all.", 200) if result.receipt else (DOUBT, 503)
    except (Refused, ValueError) as error:
        body, status = f"That did not work: {escape(str(error))}", 503 if isinstance(error, Unavailable) else 400
    except GesellError:
        body, status = "The ledger does not answer as it should; please come back in a minute.", 503
    return web.Response(text=PAGE.format(body), status=status, content_type="text/html")


async def show(request: web.Request) -> str:
    name, body = cookies.get(request.cookies.get("user", "")), JOIN
    if name:
        user = request.app[STEWARD].as_peer(keys.peer(f"user {name}"))
        handles = {member.peer: escape(member.handle) async for member in user.members()}
        body = f"<p><b>{escape(name)}, you have {await user.balance()}.</b></p>"
        tips = [TIP.format(handle) for handle in sorted(handles.values()) if handle != name]
        body += "".join(tips) or "<p>Nobody else is here yet; open this page in a second browser.</p>"
        async for tip in user.history(newest_first=True):
            if tip.reason == "pay" and tip.amount.grains > 0:
                body += f"<p>{handles.get(tip.counterpart)} tipped you {tip.amount}: {escape(tip.memo or '')}</p>"
    return body


async def join_or_tip(request: web.Request) -> str:
    form = {field: str(value) for field, value in (await request.post()).items()}
    name = form["join"].strip().lower() if "join" in form else cookies.get(request.cookies.get("user", ""), "")
    user = request.app[STEWARD].as_peer(keys.peer(f"user {name}"))
    if "join" in form:
        await user.join(name)
        await request.app[STEWARD].issue(name, "1", memo="Welcome!")
    else:
        await user.pay(form.get("to", ""), form.get("amount", ""), category="tip", memo=form.get("thanks"))
    cookies[cookie := keys.peer(f"cookie of {name}").did] = name
    raise web.HTTPSeeOther("/", headers={"Set-Cookie": f"user={cookie}; HttpOnly; SameSite=Strict; Max-Age=99999999"})


app = web.Application()
app.add_routes([web.get("/", answer), web.post("/", answer)])
app.cleanup_ctx.append(connected)
web.run_app(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8421")))
