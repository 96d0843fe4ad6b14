"""Send a recording to `reallm serve` as if it were spoken now, and print the words as they come.

reallm serve &
python examples/asyncio_client.py examples/demo.opus
"""

import asyncio
import json
import os
import sys

import soundfile
from websockets.asyncio.client import connect

SERVER = os.environ.get("REALLM_SERVER", "ws://127.0.0.1:8000")
PACE = float(os.environ.get("REALLM_PACE", "1"))  # 0: as fast as it goes


async def speak(socket, file: soundfile.SoundFile) -> None:
    for block in file.blocks(file.samplerate // 10, dtype="int16", always_2d=True):
        await socket.send(block[:, 0].tobytes())
        await asyncio.sleep(PACE * len(block) / file.samplerate)
    await socket.send(json.dumps({"type": "finish"}))


async def main(name: str) -> None:
    file = soundfile.SoundFile(name)
    try:
        connection = await connect(f"{SERVER}/v1/stream?rate={file.samplerate}")
    except OSError:
        sys.exit(f"no server answers at {SERVER}; start one: reallm serve")
    async with connection as socket:
        speaking = asyncio.create_task(speak(socket, file))
        async for message in socket:
            event = json.loads(message)
            if event["type"] == "partial":
                print(event["text"], end="", flush=True)
            elif event["type"] == "final":
                print()
            elif event["type"] == "error":
                sys.exit(event["message"])
        await speaking


if len(sys.argv) != 2:
    sys.exit(f"usage: python {sys.argv[0]} FILE   (and in another terminal: reallm serve)")
asyncio.run(main(sys.argv[1]))
