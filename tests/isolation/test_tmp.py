import trio, traceback, sys, time
from tests.gateway.conftest import Gateway, ADMIN_KEY
from tests.isolation.homes import open_home, listening
def dump(task, depth=0):
    frames=[]
    coro=task.coro
    while coro is not None and hasattr(coro,'cr_frame'):
        if coro.cr_frame is not None:
            frames.append(f"{coro.cr_frame.f_code.co_filename.split('/')[-1]}:{coro.cr_frame.f_lineno}:{coro.cr_frame.f_code.co_name}")
        coro=coro.cr_await
    print("  "*depth, task.name, frames[-6:], flush=True)
    for n in task.child_nurseries:
        for t in n.child_tasks: dump(t, depth+1)
async def watch(state):
    while True:
        await trio.sleep(2)
        if time.time()-state[0]>5:
            print("STUCK", state[1]); dump(trio.lowlevel.current_root_task()); return

from tests.isolation.test_methods import *
from tests.isolation.test_methods import prepared, rightful, answer_next_invoke
for n in [n for n in globals() if n.startswith("test_")]: del globals()[n]
async def test_x(gateway: Gateway) -> None:
    state=[time.time(),0]
    refused={}
    async with trio.open_nursery() as n, listening(gateway.port, ADMIN_KEY) as admin:
        n.start_soon(watch,state)
        for number, method in enumerate(AVAILABLE):
            state[:]=[time.time(),method.name]
            example = EXAMPLES[method.name]
            async with open_home(gateway, f"acme{number}", CANARY) as home:
                params = await prepared(home, example)
                caller = rightful(home, admin, method)
                async with trio.open_nursery() as nursery:
                    if example.is_answered_by_node:
                        nursery.start_soon(answer_next_invoke, home.node)
                    told = await caller.tell(method.name, params)
                if not all(json.loads(each)["ok"] for each in told.splitlines()):
                    refused[method.name] = told
        n.cancel_scope.cancel()
    print("REF", refused, flush=True)
