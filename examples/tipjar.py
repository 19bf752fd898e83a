"""A tip jar: a small web app whose users tip each other. It holds their keys, all made from the secret in tipjar.key.

make .venv/ready                              # once, in a fresh clone
.venv/bin/gesell serve --data ./my-ledger     # in one terminal: a ledger (or set GESELL_URL to another)
.venv/bin/python examples/tipjar.py           # in another: then open http://127.0.0.1:8421 in two browsers
"""

import os
from dataclasses import replace
from html import escape

from aiohttp import web

from gesell import AlreadyMember, Client, Custodian, GesellError, HandleTaken, InsufficientFunds, default_policy

PAGE = """<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Tip jar</title>
<body style="font: 1.1em/1.7 sans-serif; max-width: 34em; margin: 2em auto"><h1>Tip jar</h1><b>{}</b>{}"""
JOIN = '<form method="post"><input name="join" placeholder="a name, like ada"> <button>Join</button></form>'
TIP = """<form method="post"><b>{0}</b> <input type="hidden" name="to" value="{0}"> <input name="thanks"
placeholder="thank you for …"> <button name="amount" value="0.05">Tip 0.05</button></form>"""
if not os.path.exists("tipjar.key"):
    Custodian.new().save("tipjar.key", passphrase=None)
custodian, STEWARD = Custodian.load("tipjar.key"), web.AppKey("steward", Client)
cookies: dict[str, str] = {}  # made from the secret too, so they last; there are no passwords, so don't lose yours


async def connected(app: web.Application):  # one connection for all; founds a commons, as its steward, if it has none
    me, policy = custodian.peer("the app"), replace(default_policy(), admission="open")
    async with Client(os.environ.get("GESELL_URL", "http://127.0.0.1:8420"), peer=me) as gesell:
        mine = [commons.id for commons in await gesell.commons_list() if commons.stewards == (me.did,)]
        commons = mine[0] if mine else await gesell.found(name="Tip jar", currency="TIP", policy=policy)
        app[STEWARD] = gesell.as_commons(commons)
        names = [member.handle async for member in app[STEWARD].members()]
        cookies.update({custodian.peer(f"cookie of {name}").did: name for name in names})
        yield


def user(request: web.Request, name: str) -> Client:
    return request.app[STEWARD].as_peer(custodian.peer(f"user {name}"))


async def show(request: web.Request, notice: str = "") -> web.Response:
    name, body = cookies.get(request.cookies.get("user", "")), JOIN
    if name:
        gesell = user(request, name)
        handles = {member.peer: escape(member.handle) async for member in gesell.members()}
        body = f"<p>{escape(name)}, you have {await gesell.balance()}.</p>"
        body += "".join(TIP.format(handle) for handle in sorted(handles.values()) if handle != name)
        tips = [tip async for tip in gesell.history(newest_first=True) if tip.reason == "pay" and tip.amount.grains > 0]
        for tip in tips:
            body += f"<p>{handles.get(tip.counterpart)} tipped you {tip.amount}: {escape(tip.memo or 'thank you')}</p>"
    return web.Response(text=PAGE.format(escape(notice), body), content_type="text/html")


async def join_or_tip(request: web.Request) -> web.Response:
    form = {field: str(value) for field, value in (await request.post()).items()}
    try:
        name = form["join"].strip().lower() if "join" in form else cookies.get(request.cookies.get("user", ""), "")
        if "join" in form:
            await user(request, name).join(name)
            await request.app[STEWARD].issue(name, "1", memo="Welcome!")
        else:
            await user(request, name).pay(form["to"], form["amount"], category="tip", memo=form["thanks"] or None)
    except InsufficientFunds as refused:
        return await show(request, f"You have {refused.available}, too little for this tip.")
    except (AlreadyMember, HandleTaken):
        return await show(request, "That name is taken; choose another.")
    except (GesellError, ValueError, KeyError) as error:
        return await show(request, f"That did not work: {error}")
    cookie, answer = custodian.peer(f"cookie of {name}").did, web.HTTPSeeOther("/")
    cookies[cookie] = name
    answer.set_cookie("user", cookie, httponly=True, samesite="Strict", max_age=10**8)
    raise answer


app = web.Application()
app.add_routes([web.get("/", show), web.post("/", join_or_tip)])
app.cleanup_ctx.append(connected)
web.run_app(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8421")))
