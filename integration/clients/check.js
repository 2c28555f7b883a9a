// What an ordinary mysql2 program does; throws on any surprise, prints `ok` at the end. Arguments: port user password [ssl].
const assert = require('assert');
const mysql = require('mysql2/promise');

const [port, user, password, tls] = process.argv.slice(2);

async function main() {
  const options = { host: '127.0.0.1', port: Number(port), user, password, database: 'test', charset: 'utf8mb4' };
  if (tls === 'ssl') options.ssl = { rejectUnauthorized: false };
  const con = await mysql.createConnection(options);
  let [rows] = await con.query("SELECT CURRENT_USER() AS u, 'Grüße 🧗' AS g");
  assert.deepStrictEqual({ ...rows[0] }, { u: `${user}@%`, g: 'Grüße 🧗' });
  await con.query('DROP TABLE IF EXISTS js');
  await con.query('CREATE TABLE js (id INT AUTO_INCREMENT PRIMARY KEY, t VARCHAR(50), d DATETIME, n DOUBLE) CHARACTER SET utf8mb4');
  const [done] = await con.execute('INSERT INTO js (t, d, n) VALUES (?, ?, ?), (?, ?, ?)', ['a', '2024-02-29 12:00:00', 1.5, 'ü', null, -2]);
  assert.strictEqual(done.affectedRows, 2);
  [rows] = await con.execute('SELECT t, n FROM js WHERE n > ? ORDER BY id', [0]);
  assert.deepStrictEqual(rows.map((r) => ({ ...r })), [{ t: 'a', n: 1.5 }]);
  // The same statement again comes from the driver's cache: only EXECUTE is sent.
  for (let i = 0; i < 20; i++) {
    [rows] = await con.execute('SELECT ? + 1 AS s', [i]);
    assert.strictEqual(Number(rows[0].s), i + 1);
  }
  await con.beginTransaction();
  await con.execute('DELETE FROM js');
  await con.rollback();
  [rows] = await con.query('SELECT COUNT(*) AS c FROM js');
  assert.strictEqual(rows[0].c, 2);
  // Pipelined: the driver queues, but starts the next before this one's promise is read.
  const many = await Promise.all([1, 2, 3, 4, 5].map((i) => con.query(`SELECT ${i} AS i`)));
  assert.deepStrictEqual(many.map(([r]) => r[0].i), [1, 2, 3, 4, 5]);
  await assert.rejects(con.query('SELECT nonsense'), { errno: 1054 });
  await con.changeUser({ user, password, database: 'shop' });
  [rows] = await con.query('SELECT DATABASE() AS d');
  assert.strictEqual(rows[0].d, 'shop');
  await con.query('DROP TABLE test.js');
  await con.ping();
  await con.end();

  const multi = await mysql.createConnection({ ...options, multipleStatements: true });
  [rows] = await multi.query('SELECT 1 AS a; SELECT 2 AS b; SET @x = 3');
  assert.strictEqual(rows.length, 3);
  await multi.end();

  const pool = mysql.createPool({ ...options, connectionLimit: 10 });
  const sums = await Promise.all(Array.from({ length: 200 }, (_, i) => pool.execute('SELECT ? * 2 AS d', [i])));
  sums.forEach(([r], i) => assert.strictEqual(Number(r[0].d), i * 2));
  await pool.end();
  await assert.rejects(mysql.createConnection({ ...options, password: password + 'x' }), { errno: 1045 });
  console.log('ok');
}
main().catch((e) => { console.error(e); process.exit(1); });
