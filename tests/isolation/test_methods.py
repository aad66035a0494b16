import time
from tests.gateway.conftest import Gateway
from tests.isolation.homes import open_home

async def test_x(gateway: Gateway) -> None:
    for n in range(5):
        t=time.time()
        async with open_home(gateway, f"acme{n}", "canary") as acme:
            print(time.time()-t, acme.things)
    print(acme.operator.heard[-10:])
