"""Levels of BabyAI in one room of 6 x 6 cells, and the bot that solves them, for babyai.py. It needs minigrid.

mission (level, pairs, sentence) -> room with five objects, seen from above -> steps of the bot -> frames (F, 64, 64, 3)
"""

import contextlib
import os

import numpy as np
from minigrid.core.world_object import Door
from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel
from minigrid.envs.babyai.core.verifier import (
    BeforeInstr,
    GoToInstr,
    Instr,
    ObjDesc,
    OpenInstr,
    PickupInstr,
    PutNextInstr,
)
from minigrid.utils.baby_ai_bot import BabyAIBot

SIDE, CELL = 8, 8  # cells of a frame, with the walls, and pixels of a cell
MOST_STEPS = 60  # of a solution; the longest of 500 has 30


class Level(RoomGridLevel):
    """A level for one mission, see `Mission` in babyai.py. Around its walls is a second ring of walls, which is not
    shown: the bot expects cells behind an open door."""

    def __init__(self, mission):
        self.planned = mission
        super().__init__(room_size=SIDE + 2, num_rows=1, num_cols=1)

    def gen_mission(self) -> None:
        """Places agent, objects and doors at random, and sets the instruction."""
        self.grid.wall_rect(1, 1, SIDE, SIDE)
        self.place_agent()
        for pair in self.planned.objects:
            color, kind = pair.split()
            self.add_object(0, 0, kind, color)
        for wall, color in zip(self._rand_subset(range(4), 4), self.planned.doors, strict=False):
            along, across = self._rand_int(2, SIDE), (1, SIDE)[wall // 2]
            self.put_obj(Door(color), *((along, across) if wall % 2 else (across, along)))
        self.check_objs_reachable()
        self.instrs = instruction(self.planned)

    def shown(self) -> np.ndarray:
        """Returns the room from above, uint8 `(64, 64, 3)`."""
        return self.get_frame(highlight=False, tile_size=CELL)[CELL:-CELL, CELL:-CELL]


def instruction(mission) -> Instr:
    """Returns the mission as BabyAI has it. Its sentence is that of the mission."""
    first, second = (ObjDesc(*reversed(pair.split())) for pair in mission.objects[:2])
    match mission.level:
        case "go_to":
            return GoToInstr(first)
        case "pick_up":
            return PickupInstr(first)
        case "put_next":
            return PutNextInstr(first, second)
        case "go_to_order":
            return BeforeInstr(GoToInstr(first), GoToInstr(second))
    parts = OpenInstr(ObjDesc("door", mission.doors[0])), GoToInstr(first)
    return BeforeInstr(*(parts if mission.door_first else parts[::-1]))


def solve(mission, seed: int) -> np.ndarray | None:
    """Returns the frames of a solution, uint8 `(F, 64, 64, 3)`: the first one before a step, then one after each.

    None if the bot does not solve it. seed: of the places."""
    level, action = Level(mission), None
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # it prints each place that it rejects
        level.reset(seed=seed)
    bot, frames, reward, ended = BabyAIBot(level), [level.shown()], 0, False
    try:
        while not ended and len(frames) <= MOST_STEPS:
            action = bot.replan(action)
            _, reward, *ends, _ = level.step(int(action))
            frames.append(level.shown())
            ended = any(ends)
    except AssertionError:  # of the bot, in a place that it can't leave
        return None
    return np.stack(frames) if reward > 0 else None
