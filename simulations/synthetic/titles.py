"""Titles for a generated catalogue: invented films and series that read like real ones."""

import random
from collections.abc import Iterator

__all__ = ["CATEGORIES", "titles"]

# category -> (adjectives, nouns, places)
_WORDS: dict[str, tuple[str, str, str]] = {
    "Adventure": (
        "Last Golden Lost Northern Fearless Hidden Endless Wild",
        "Compass Expedition Treasure Caravan Voyage River Summit Map",
        "Amber Bay,the Salt Desert,Kingfisher Island,the High Pass,Old Cartagena",
    ),
    "Animation": (
        "Little Paper Cloudy Brave Tiny Painted Sleepy Marvellous",
        "Fox Kite Robot Garden Whale Toymaker Dragon Sparrow",
        "Lantern Town,the Candy Hills,Button Street,the Moon Orchard,Puddle Lane",
    ),
    "Comedy": (
        "Awkward Second Perfect Terrible Accidental Borrowed Unlikely Cheerful",
        "Wedding Neighbour Holiday Landlord Reunion Cousin Alibi Breakfast",
        "Little Finchley,the Ninth Floor,Paradise Motel,Plum Street,Lower Tadcaster",
    ),
    "Crime": (
        "Silent Crooked Final Cold Broken Borrowed Careful Midnight",
        "Witness Ledger Inspector Verdict Harbour Alibi Ransom Informer",
        "Dock Street,Black Pine,the Old Quarter,Calder Bridge,Pier Nine",
    ),
    "Documentary": (
        "Living Inner Vanishing Frozen Unseen Ancient Open Ordinary",
        "Ocean Archive Forest Orchestra Glacier Kitchen Machine Harvest",
        "the Deep South Sea,Svalbard,the Rift Valley,Kyoto,the Outer Hebrides",
    ),
    "Drama": (
        "Distant Quiet Winter Tender Unspoken Fading Ordinary Second",
        "Letter Daughter Orchard Promise Season House Goodbye Piano",
        "Saltmarsh,Maple County,the Lake,Rue Fontaine,Ashby Hill",
    ),
    "Fantasy": (
        "Crimson Enchanted Thorn Silver Forgotten Moonlit Sworn Hollow",
        "Crown Wizard Kingdom Raven Oath Tower Witch Sword",
        "Eldermoor,the Ninth Realm,Thistlewood,the Glass Mountain,Varn",
    ),
    "Horror": (
        "Hungry Pale Buried Whispering Cursed Nameless Rotten Sleepless",
        "Cellar Doll Chapel Stranger Mirror Hour Lullaby Attic",
        "Hollow House,Grave Lake,Room 217,the Marsh,Saint Agnes",
    ),
    "Music": (
        "Electric Velvet Blue Late Golden Restless Broken Slow",
        "Chorus Encore Jukebox Trumpet Record Rehearsal Ballad Stage",
        "Basin Street,the Apollo Rooms,Studio Two,Memphis Road,the Blue Note Cafe",
    ),
    "Romance": (
        "Secret Summer Paper Sweet Impossible Tuesday Starlit Stolen",
        "Kiss Bookshop Waltz Valentine Train Rendezvous Umbrella Vineyard",
        "Lisbon,the Left Bank,Cherry Lane,Portofino,Gate 22",
    ),
    "Science Fiction": (
        "Quantum Stellar Binary Last Orbital Synthetic Parallel Zero",
        "Signal Colony Horizon Android Station Paradox Engine Drift",
        "Titan,Orbit Nine,New Carthage,the Outer Ring,Kepler Deep",
    ),
    "Thriller": (
        "Double Deadly Hollow Hostile Shadow Perfect Blind Seventh",
        "Protocol Courier Target Hostage Cipher Defector Trap Confession",
        "Berlin Station,Level Four,the Embassy,Zurich,Flight 708",
    ),
}

CATEGORIES = tuple(_WORDS)


def titles(category: str, rng: random.Random) -> Iterator[str]:
    """Yield titles of a category without end, none twice."""
    adjectives, nouns, places = _WORDS[category]
    used: dict[str, int] = {}
    while True:
        adjective, noun = rng.choice(adjectives.split()), rng.choice(nouns.split())
        place = rng.choice(places.split(","))
        form = rng.choice(("The {a} {n}", "The {n} of {p}", "{a} {n}", "The {a} {n} of {p}", "{n} in {p}"))
        title = form.format(a=adjective, n=noun, p=place)
        used[title] = used.get(title, 0) + 1
        # every other remake carries its year, as in film lists
        yield title if used[title] == 1 else f"{title} ({1970 + used[title]})"
