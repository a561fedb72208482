#!/usr/bin/env python3
"""Draws invented users over the items of data/stickers and data/photos, by a rule and a seed.

A taste is a keyword that at least four items share. A user has a taste: the history has three to six items of it in random order and up to
one item of another kind, and the target is one more item of the taste. No two users have the same history and target, in any split.

    scripts/draw_users.py --data data --out recipes/pmg/users --seed 2026

writes train.json, dev.json and test.json. Paths of images start from the folder of --data.
"""

import argparse
import collections
import json
import pathlib
import random

FOLDERS = ("stickers", "photos")
SIZES = {"train": 240, "dev": 24, "test": 24}
FEWEST = 3


def items_of(data):
    items = []
    for folder in FOLDERS:
        for item in json.loads((data / folder / "items.json").read_text()):
            kept = {key: item[key] for key in ("item_id", "caption")}
            items.append((kept | {"image_path": f"{folder}/{item['image_path']}"}, set(item["keywords"])))
    return items


def draw(generator, items, tastes):
    taste = generator.choice(sorted(tastes))
    liked = [item for item, keywords in items if taste in keywords]
    others = [item for item, keywords in items if taste not in keywords]
    target = generator.choice(liked)
    liked = [item for item in liked if item != target]
    history = generator.sample(liked, min(len(liked), generator.randint(FEWEST, 6)))
    history += generator.sample(others, generator.randint(0, 1))
    generator.shuffle(history)
    return taste, history, target


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, default="data")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=2026)
    arguments = parser.parse_args()
    items = items_of(arguments.data)
    counts = collections.Counter(keyword for _, keywords in items for keyword in keywords)
    tastes = [keyword for keyword, count in counts.items() if count > FEWEST]
    generator = random.Random(arguments.seed)
    seen = set()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for split, size in SIZES.items():
        users = []
        while len(users) < size:
            taste, history, target = draw(generator, items, tastes)
            key = (frozenset(item["item_id"] for item in history), target["item_id"])
            if key in seen:
                continue
            seen.add(key)
            name = f"{split}-{len(users):03}-{taste.replace(' ', '-')}"
            users.append({"user_id": name, "history_items_info": history, "target_item_info": target})
        text = ",\n".join(json.dumps(user, ensure_ascii=False) for user in users)
        (arguments.out / f"{split}.json").write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    main()
