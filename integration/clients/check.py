"""What an ordinary PyMySQL program does; fails with a traceback, prints `ok` at the end. Arguments: port user password [ssl]."""

import ssl
import sys

import pymysql

port, user, password = int(sys.argv[1]), sys.argv[2], sys.argv[3]
options = {}
if "ssl" in sys.argv[4:]:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    options["ssl"] = context
if "unix" in sys.argv[4:]:
    options["unix_socket"] = sys.argv[sys.argv.index("unix") + 1]
else:
    options["host"] = "127.0.0.1"


def connect(**more):
    return pymysql.connect(port=port, user=user, password=password, database="test", charset="utf8mb4",
                           **{**options, **more})


con = connect()
with con.cursor() as cur:
    cur.execute("SELECT CURRENT_USER(), 'Grüße 🧗'")
    assert cur.fetchone() == (f"{user}@%", "Grüße 🧗")
    cur.execute("DROP TABLE IF EXISTS py")
    cur.execute("CREATE TABLE py (id INT AUTO_INCREMENT PRIMARY KEY, t VARCHAR(50)) CHARACTER SET utf8mb4")
    assert cur.executemany("INSERT INTO py (t) VALUES (%s)", [("a",), ("b'\\",), ("ü",)]) == 3
    con.rollback()
    cur.execute("SELECT COUNT(*) FROM py")
    assert cur.fetchone() == (0,)
    cur.execute("INSERT INTO py (t) VALUES ('x')")
    first = cur.lastrowid
    assert first > 0
    con.commit()
    cur.execute("SELECT LAST_INSERT_ID()")
    assert cur.fetchone() == (first,)
    try:
        cur.execute("SELECT nonsense")
        raise AssertionError("no error")
    except pymysql.err.OperationalError as e:
        assert e.args[0] == 1054, e
    cur.execute("SELECT 1 UNION SELECT 2 UNION SELECT 3")
    assert [r[0] for r in cur.fetchall()] == [1, 2, 3]
con.autocommit(True)
con.ping(reconnect=False)
con.select_db("shop")
with con.cursor(pymysql.cursors.SSDictCursor) as cur:
    cur.execute("SELECT id, name FROM item ORDER BY id")
    assert cur.fetchone()["name"] == "carabiner"
con.set_charset("latin1")
with con.cursor() as cur:
    cur.execute("SELECT @@character_set_client, @@collation_connection")
    assert cur.fetchone()[0] == "latin1"
con.close()

multi = connect(client_flag=pymysql.constants.CLIENT.MULTI_STATEMENTS)
with multi.cursor() as cur:
    cur.execute("SELECT 1; SELECT 2; DROP TABLE py")
    found = [cur.fetchall()]
    while cur.nextset():
        found.append(cur.fetchall())
    assert found[:2] == [((1,),), ((2,),)], found
multi.close()
try:
    pymysql.connect(port=port, user=user, password=password + "x", **options)
    raise AssertionError("wrong password accepted")
except pymysql.err.OperationalError as e:
    assert e.args[0] == 1045, e
print("ok")
