"""Labels beside the ends of lines, moved apart until none lies on another."""


def spread(wanted, distance, top, bottom):
    """Places in the order of `wanted`, at least `distance` from each other and as near to those as that allows."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    groups = []
    for index in order:
        groups.append([wanted[index], 1])
        # A group is where its members want to be on the average; two that touch become one.
        while len(groups) > 1 and touch(groups[-2], groups[-1], distance):
            centre, count = groups.pop()
            former = groups[-1]
            groups[-1] = [(former[0] * former[1] + centre * count) / (former[1] + count), former[1] + count]
    places = [centre + (number - (count - 1) / 2) * distance for centre, count in groups for number in range(count)]
    return [place for _, place in sorted(zip(order, inside(places, distance, top, bottom)))]


def touch(upper, lower, distance):
    return lower[0] - upper[0] < (upper[1] + lower[1]) / 2 * distance


def inside(places, distance, top, bottom):
    """The same between two bounds: first all down from the top, then all up from the bottom."""
    for index, place in enumerate(places):
        places[index] = max(place, places[index - 1] + distance if index else top)
    for index in reversed(range(len(places))):
        places[index] = min(places[index], places[index + 1] - distance if index + 1 < len(places) else bottom)
    return places
