"""Send a recording to `reallm serve` as if it were spoken now, and print the words as they come.

reallm serve &
python examples/asyncio_client.py examples/demo.opus

Where the connection is lost, or the server goes down, it connects anew and goes on after the last words that are final.
"""

import asyncio
import json
import os
import sys

import soundfile
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

SERVER = os.environ.get("REALLM_SERVER", "ws://127.0.0.1:8000")
PACE = float(os.environ.get("REALLM_PACE", "1"))  # 0: as fast as it goes
TRIES = 10


async def speak(socket: ClientConnection, file: soundfile.SoundFile) -> None:
    for block in file.blocks(file.samplerate // 10, dtype="int16", always_2d=True):
        await socket.send(block[:, 0].tobytes())
        await asyncio.sleep(PACE * len(block) / file.samplerate)
    await socket.send(json.dumps({"type": "finish"}))


async def listen(file: soundfile.SoundFile, begin: float) -> tuple[bool, float]:
    """One connection, with the audio from `begin` seconds on: is all of it done, and up to where is text final?"""
    done = begin
    file.seek(round(begin * file.samplerate))
    async with connect(f"{SERVER}/v1/stream?rate={file.samplerate}") as socket:
        speaking = asyncio.create_task(speak(socket, file))
        try:
            async for message in socket:
                event = json.loads(message)
                if event["type"] == "partial":
                    print(event["text"], end="", flush=True)
                elif event["type"] == "final":
                    print()
                    done = begin + event["end"]
                elif event["type"] == "error":
                    if event["code"] not in ("busy", "draining"):
                        sys.exit(event["message"])
                    return False, done
        except ConnectionClosed:
            return False, done
        finally:
            speaking.cancel()
        return socket.close_code == 1000, done


async def main(name: str) -> None:
    file, begin, met, tries = soundfile.SoundFile(name), 0.0, False, 0
    while True:
        reached = begin
        try:
            complete, reached = await listen(file, begin)
            if complete:
                return
            met = True
        except (OSError, WebSocketException):
            pass
        tries = 0 if reached > begin else tries + 1
        if not met or tries == TRIES:
            sys.exit(f"no server answers at {SERVER}; start one: reallm serve")
        begin = reached
        print(f"\n(connecting anew, from {begin:.1f} s on)", file=sys.stderr)
        await asyncio.sleep(0.5)


if len(sys.argv) != 2:
    sys.exit(f"usage: python {sys.argv[0]} FILE   (and in another terminal: reallm serve)")
asyncio.run(main(sys.argv[1]))
