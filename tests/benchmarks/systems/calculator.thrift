struct Pair {
    1: required i64 x,
    2: required i64 y,
}

struct Place {
    1: required double x,
    2: required double y,
    3: required string label,
}

struct Mixed {
    1: optional i64 count_0,
    2: optional double ratio_0,
    3: optional string name_0,
    4: optional bool flag_0,
    5: optional i64 count_1,
    6: optional double ratio_1,
    7: optional string name_1,
    8: optional bool flag_1,
    9: optional i64 count_2,
    10: optional double ratio_2,
    11: optional string name_2,
    12: optional bool flag_2,
    13: optional i64 count_3,
    14: optional double ratio_3,
    15: optional string name_3,
    16: optional bool flag_3,
    17: optional i64 count_4,
    18: optional double ratio_4,
    19: optional string name_4,
    20: optional bool flag_4,
    21: optional i64 count_5,
    22: optional double ratio_5,
    23: optional string name_5,
    24: optional bool flag_5,
    25: optional i64 count_6,
    26: optional double ratio_6,
    27: optional string name_6,
    28: optional bool flag_6,
    29: optional i64 count_7,
    30: optional double ratio_7,
    31: optional string name_7,
    32: optional bool flag_7,
    33: optional string note_0,
    34: optional string note_1,
    35: optional string note_2,
    36: optional string note_3,
    37: optional list<i64> series_0,
    38: optional Place place_0,
    39: optional list<i64> series_1,
    40: optional Place place_1,
}

struct Row {
    1: required i64 id,
    2: required string name,
    3: required double price,
    4: required bool in_stock,
    5: optional string owner,
}

service Calculator {
    i64 add(1: Pair pair),
    string echo(1: string text),
    Mixed send_back_mixed(1: Mixed mixed),
    list<Row> send_back_rows(1: list<Row> rows),
}
